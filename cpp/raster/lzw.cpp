#include "raster/lzw.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace rvk {

namespace {

constexpr unsigned kClear = 256, kEnd = 257, kFirst = 258, kCodes = 4096;
constexpr size_t kVector = 16;

struct Literals {
  std::array<uint8_t, 256 + kVector> bytes{};
  constexpr Literals() {
    for (size_t i = 0; i < 256; ++i) bytes[i] = static_cast<uint8_t>(i);
  }
};
constexpr Literals kLiterals;

uint64_t big_endian(const uint8_t* bytes) {
  uint64_t value;
  std::memcpy(&value, bytes, sizeof(value));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  value = __builtin_bswap64(value);
#endif
  return value;
}

}  // namespace

bool decode_lzw(const uint8_t* bytes, size_t size, uint8_t* const out, size_t out_size) {
  if (out_size == 0) return true;

  // Entry c is the string of code c: `length` bytes from out[begin] on. The first 256 are not in the output.
  struct Entry {
    uint32_t begin, length;
  };
  if (out_size > UINT32_MAX) return false;
  std::array<Entry, kCodes> table;
  for (unsigned c = 0; c < 256; ++c) table[c] = {0, 1};

  const size_t bits = size * 8;
  // What does not begin with a clear code has the old bit order, or has lost it: libtiff decodes that as if a 0 had
  // come before.
  if (bits < 9 || big_endian(bytes) >> (64 - 9) != kClear) return false;
  size_t bit = 9;
  uint8_t* to = out;
  uint8_t* const end = out + out_size;
  for (;;) {  // from one clear code to the next
    unsigned width = 9, next = kFirst;
    unsigned code;
    do {  // several in a row are harmless
      if (bit + width > bits) return false;
      code = static_cast<unsigned>(big_endian(bytes + bit / 8) << (bit & 7) >> (64 - 9));
      bit += width;
    } while (code == kClear);
    if (code >= 256) return false;
    Entry previous{static_cast<uint32_t>(to - out), 1};
    *to++ = static_cast<uint8_t>(code);
    if (to == end) return true;

    for (;;) {  // codes of one width
      const size_t left = (bits - bit) / width;
      if (left == 0) return false;
      // The code that fills the table up to the next width is the last of this one.
      const unsigned last = width < 12 ? (1u << width) - 1 : kCodes;
      const size_t count = std::min<size_t>(left, last - next);
      if (count == 0) return false;  // the table is full and was not cleared
      for (size_t i = 0; i < count; ++i) {
        code = static_cast<unsigned>(big_endian(bytes + bit / 8) << (bit & 7) >> (64 - width));
        bit += width;
        // The entry that this code completes: what came before and the first byte of what comes now. It is made first,
        // as the code may already name it; then its last byte is the first that this very copy writes.
        table[next] = {previous.begin, previous.length + 1};
        if (code == kClear || code == kEnd) break;
        if (code > next) return false;
        ++next;
        const uint8_t* from = code < 256 ? kLiterals.bytes.data() + code : out + table[code].begin;
        const uint32_t length = table[code].length;
        if (length > static_cast<size_t>(end - to)) {  // the last string may be longer than what is wanted
          for (size_t k = 0; to + k < end; ++k) to[k] = from[k];
          return true;
        }
        for (size_t k = 0; k < length; k += kVector) {
          std::array<uint8_t, kVector> vector;  // read first: the two places may overlap
          std::memcpy(vector.data(), from + k, kVector);
          std::memcpy(to + k, vector.data(), kVector);
        }
        to[length - 1] = from[length - 1];
        previous = {static_cast<uint32_t>(to - out), length};
        to += length;
        if (to == end) return true;
      }
      if (code == kClear) break;
      if (code == kEnd) return false;  // before all was written
      if (next == last) ++width;
    }
  }
}

}  // namespace rvk
