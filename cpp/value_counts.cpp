#include "value_counts.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "dispatch.h"

#if defined(__x86_64__)
#pragma GCC diagnostic push
// GCC 12 means its own _mm512_undefined_epi32 (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace rvk {
namespace {

template <typename T>
constexpr int64_t kValues = int64_t{std::numeric_limits<T>::max()} - std::numeric_limits<T>::min() + 1;

// Of a table, a cache line more than the values: at a multiple of 4 KiB from one table to the next, the CPU would take
// the counters of one value in two tables for the same address and wait.
int64_t bins_of(int64_t values) { return values + 16; }

constexpr int64_t kWidest = 16;               // counters raised per turn of an unrolled loop
constexpr int64_t kCache = 16 << 10;          // bytes of tables that leave room in a first-level cache
constexpr int64_t kStretch = 1024;            // pixels whose validity is looked at together
constexpr int64_t kMost = int64_t{1} << 31;   // pixels until 32-bit counters are emptied
constexpr int64_t kMostSliced = 16;           // bytes per pixel; separating bands costs more than tables beyond
constexpr int64_t kGroup = 512;               // values, a bit each in a vector
constexpr int64_t kGroups = 32;               // groups per block: their masks fit in a first-level cache
constexpr int64_t kBlock = kGroup * kGroups;  // pixels
constexpr int64_t kPlane = kBlock + 192;      // bytes from one band's block to the next: not a multiple of 4 KiB either

template <typename T>
int64_t bin(T value) {
  return int64_t{value} - std::numeric_limits<T>::min();
}

template <typename T, int64_t Width>
void raise(const T* const* from, int64_t n, int64_t step, uint32_t* counts, int64_t bins) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < Width; ++j) ++counts[j * bins + bin(from[j][i * step])];
}

template <typename T, size_t... I>
constexpr auto raises(std::index_sequence<I...>) {
  return std::array{&raise<T, int64_t{I} + 1>...};
}

#if defined(__x86_64__)

// masks[i] = pixels where the bits of planes[1..0] are those of i, and `among` is set.
RVK_VBMI RVK_INLINE inline void minterms(const __m512i* planes, __m512i among, __m512i* masks) {
  masks[0] = _mm512_ternarylogic_epi64(among, planes[1], planes[0], 0x10);
  masks[1] = _mm512_ternarylogic_epi64(among, planes[1], planes[0], 0x20);
  masks[2] = _mm512_ternarylogic_epi64(among, planes[1], planes[0], 0x40);
  masks[3] = _mm512_ternarylogic_epi64(among, planes[1], planes[0], 0x80);
}

// Two 16-bit columns of four vectors each become two words of 8 bytes.
RVK_VBMI RVK_INLINE inline void mirror(__m512i x0, __m512i x1, __m512i x2, __m512i x3, __m512i* out) {
  const __m512i a = _mm512_unpacklo_epi16(x0, x1), b = _mm512_unpackhi_epi16(x0, x1);
  const __m512i c = _mm512_unpacklo_epi16(x2, x3), d = _mm512_unpackhi_epi16(x2, x3);
  out[0] = _mm512_unpacklo_epi32(a, c);
  out[1] = _mm512_unpackhi_epi32(a, c);
  out[2] = _mm512_unpacklo_epi32(b, d);
  out[3] = _mm512_unpackhi_epi32(b, d);
}

// planes[j], 64-bit word q, byte k, bit i = bit j of values[64 * k + 8 * q + 7 - i].
RVK_VBMI RVK_INLINE inline void bit_planes(const uint8_t* values, __m512i* planes) {
  // Every 8 bytes as a square of bits are mirrored: as the matrix that is multiplied with 1, 2, 4, ..., 128.
  const __m512i units = _mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201u));
  __m512i g[8];
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) g[k] = _mm512_gf2p8affine_epi64_epi8(units, _mm512_loadu_si512(values + 64 * k), 0);
  // Then the squares of 8 x 8 bytes across the vectors, for even and odd words.
  __m512i even[4], odd[4];
  mirror(_mm512_unpacklo_epi8(g[0], g[1]), _mm512_unpacklo_epi8(g[2], g[3]), _mm512_unpacklo_epi8(g[4], g[5]),
         _mm512_unpacklo_epi8(g[6], g[7]), even);
  mirror(_mm512_unpackhi_epi8(g[0], g[1]), _mm512_unpackhi_epi8(g[2], g[3]), _mm512_unpackhi_epi8(g[4], g[5]),
         _mm512_unpackhi_epi8(g[6], g[7]), odd);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    planes[2 * i] = _mm512_unpacklo_epi64(even[i], odd[i]);
    planes[2 * i + 1] = _mm512_unpackhi_epi64(even[i], odd[i]);
  }
}

// One bit per pixel, in the order of bit_planes.
RVK_VBMI RVK_INLINE inline __m512i in_plane_order(const uint64_t* bits) {
  alignas(64) static constexpr uint8_t kMirror[64] = {0, 8,  16, 24, 32, 40, 48, 56, 1, 9,  17, 25, 33, 41, 49, 57,
                                                      2, 10, 18, 26, 34, 42, 50, 58, 3, 11, 19, 27, 35, 43, 51, 59,
                                                      4, 12, 20, 28, 36, 44, 52, 60, 5, 13, 21, 29, 37, 45, 53, 61,
                                                      6, 14, 22, 30, 38, 46, 54, 62, 7, 15, 23, 31, 39, 47, 55, 63};
  const __m512i bytes = _mm512_permutexvar_epi8(_mm512_load_si512(kMirror), _mm512_loadu_si512(bits));
  return _mm512_gf2p8affine_epi64_epi8(bytes, _mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201u)), 0);
}

struct Masks {
  alignas(64) __m512i of[kGroups][4][4];  // by two bits of the value each, from the least
  alignas(64) uint16_t present[kGroups];  // bit h: the group has the upper half byte h
};

// The sums over the eight words of 16 vectors, as 16 bits each: no sum is more than kBlock.
RVK_VBMI RVK_INLINE inline __m256i sums(const __m512i* a) {
  __m512i q[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i even = _mm512_add_epi64(a[4 * i], _mm512_slli_epi64(a[4 * i + 2], 32));
    const __m512i odd = _mm512_add_epi64(a[4 * i + 1], _mm512_slli_epi64(a[4 * i + 3], 32));
    q[i] = _mm512_add_epi64(even, _mm512_slli_epi64(odd, 16));
  }
  const __m512i x = _mm512_add_epi64(_mm512_unpacklo_epi64(q[0], q[1]), _mm512_unpackhi_epi64(q[0], q[1]));
  const __m512i y = _mm512_add_epi64(_mm512_unpacklo_epi64(q[2], q[3]), _mm512_unpackhi_epi64(q[2], q[3]));
  const __m512i z = _mm512_add_epi64(_mm512_shuffle_i64x2(x, y, 0x44), _mm512_shuffle_i64x2(x, y, 0xEE));
  const __m512i total = _mm512_add_epi64(z, _mm512_shuffle_i64x2(z, z, 0xB1));
  return _mm512_castsi512_si256(_mm512_shuffle_i64x2(total, total, 0x08));
}

// `Lows`: how many lower half bytes can occur, 8 or 16.
template <int Lows>
RVK_VBMI void count_shared_bits(const Masks& masks, const uint8_t* ahead, uint32_t* counts) {
  const __m512i present = _mm512_load_si512(masks.present);
  for (int h = 0; h < 16; ++h) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kBlock / 16; i += 64) __builtin_prefetch(ahead + kBlock / 16 * h + i);
    uint32_t groups = _mm512_test_epi16_mask(present, _mm512_set1_epi16(static_cast<int16_t>(1 << h)));
    if (groups == 0) continue;
    __m512i a[16];
#pragma GCC unroll 16
    for (int l = 0; l < 16; ++l) a[l] = _mm512_setzero_si512();
    for (; groups != 0; groups &= groups - 1) {
      const int k = __builtin_ctz(groups);
      const __m512i(&of)[4][4] = masks.of[k];
      const __m512i high = _mm512_and_si512(of[3][h / 4], of[2][h % 4]);
#pragma GCC unroll 4
      for (int m = 0; m < Lows / 4; ++m) {
        const __m512i part = _mm512_and_si512(high, of[1][m]);
#pragma GCC unroll 4
        for (int l = 0; l < 4; ++l)
          a[4 * m + l] = _mm512_add_epi64(a[4 * m + l], _mm512_popcnt_epi64(_mm512_and_si512(part, of[0][l])));
      }
    }
    uint32_t* row = counts + 16 * h;
    _mm512_storeu_si512(row, _mm512_add_epi32(_mm512_loadu_si512(row), _mm512_cvtepu16_epi32(sums(a))));
  }
}

// values: whole groups; bits: one per value, 0 = leave it out; null = all count. counts (256) grow. From `ahead` on, a
// block of bytes comes into the cache: memory would rest while masks are compared.
RVK_VBMI void count_block(const uint8_t* values, int64_t groups, const uint64_t* bits, const uint8_t* ahead,
                          uint32_t* counts) {
  Masks masks;
  std::memset(masks.present, 0, sizeof(masks.present));
  __m512i eights = _mm512_setzero_si512();
  for (int64_t k = 0; k < groups; ++k) {
    __m512i planes[8];
    bit_planes(values + kGroup * k, planes);
    eights = _mm512_or_si512(eights, planes[3]);
    const __m512i all = _mm512_set1_epi64(-1);
    __m512i high[4], middle[4];
    minterms(planes + 6, bits == nullptr ? all : in_plane_order(bits + 8 * k), high);
    minterms(planes + 4, all, middle);
    minterms(planes + 2, all, masks.of[k][1]);
    minterms(planes, all, masks.of[k][0]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      masks.of[k][3][i] = high[i];
      masks.of[k][2][i] = middle[i];
    }
    __mmask16 pairs[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      pairs[i] = _mm512_kunpackb(_mm512_test_epi64_mask(high[i / 2], middle[i % 2 * 2 + 1]),
                                 _mm512_test_epi64_mask(high[i / 2], middle[i % 2 * 2]));
    const __mmask64 some = _mm512_kunpackd(_mm512_kunpackw(pairs[3], pairs[2]), _mm512_kunpackw(pairs[1], pairs[0]));
    const __mmask64 others = _mm512_kunpackd(_mm512_kunpackw(pairs[7], pairs[6]), _mm512_kunpackw(pairs[5], pairs[4]));
    const __m128i touched = _mm_set_epi64x(static_cast<int64_t>(others), static_cast<int64_t>(some));
    masks.present[k] = _mm_test_epi8_mask(touched, touched);
  }
  if (_mm512_test_epi64_mask(eights, eights) == 0)
    count_shared_bits<8>(masks, ahead, counts);
  else
    count_shared_bits<16>(masks, ahead, counts);
}

uint64_t first_bits(int64_t n) { return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }

// A bit per pixel, 0 from `pixels` to the next multiple of 64; returns how many are 1.
RVK_VBMI int64_t valid_bits(const uint8_t* valid, int64_t pixels, uint64_t* bits) {
  int64_t count = 0;
  for (int64_t i = 0; i < pixels; i += 64) {
    uint64_t here = first_bits(pixels - i);
    if (valid != nullptr) {
      __builtin_prefetch(valid + i + kBlock);
      const __m512i v = _mm512_maskz_loadu_epi8(here, valid + i);
      here = _mm512_test_epi8_mask(v, v);
    }
    bits[i / 64] = here;
    count += __builtin_popcountll(here);
  }
  return count;
}

// How 64 pixels of `Step` bytes, as many vectors, become 64 values of each band. A pixel is `kWords` words of `kBytes`
// bytes, a power of two, and the number of words is odd: at a place of `kWords` vectors in turn, every word of a pixel
// stands once. Whole words change vectors but not places, until a vector holds nothing but one word of all pixels; then
// the bytes of `kBytes` vectors do; and the values of a vector are put in order.
template <int Step>
struct Separation {
  static constexpr int kBytes = Step & -Step;
  static constexpr int kWords = Step / kBytes;
  static constexpr int kPlaces = 64 / kBytes;  // of words in a vector

  // Places whose number modulo kWords has the bit `shift`, as bytes.
  static constexpr uint64_t places(int shift) {
    uint64_t bytes = 0;
    for (int i = 0; i < 64; ++i) bytes |= static_cast<uint64_t>((i / kBytes % kWords & shift) != 0) << i;
    return bytes;
  }

  // Bytes whose number in the word has the bit `shift`.
  static constexpr uint64_t bytes(int shift) {
    uint64_t bytes = 0;
    for (int i = 0; i < 64; ++i) bytes |= static_cast<uint64_t>((i & shift) != 0) << i;
    return bytes;
  }

  struct Order {
    alignas(64) uint8_t of[kWords][64];
  };
  // Where the value of each pixel stands in the end, by word.
  static constexpr Order order() {
    Order order{};
    for (int k = 0; k < kWords; ++k)
      for (int place = 0; place < kPlaces; ++place) {
        const int word = (kPlaces * k + place) % kWords, pixel = (kPlaces * k + place) / kWords;
        for (int i = 0; i < kBytes; ++i) order.of[word][kPlaces * i + pixel] = static_cast<uint8_t>(kBytes * place + i);
      }
    return order;
  }
};

// Bytes of a vector `by` places on or back, within what stays together of 16 bytes and less.
template <int by>
RVK_VBMI RVK_INLINE inline __m512i bytes_on(__m512i x) {
  if constexpr (by == 1) return _mm512_slli_epi16(x, 8);
  if constexpr (by == 2) return _mm512_slli_epi32(x, 16);
  if constexpr (by == 4) return _mm512_slli_epi64(x, 32);
  return _mm512_bslli_epi128(x, 8);
}

template <int by>
RVK_VBMI RVK_INLINE inline __m512i bytes_back(__m512i x) {
  if constexpr (by == 1) return _mm512_srli_epi16(x, 8);
  if constexpr (by == 2) return _mm512_srli_epi32(x, 16);
  if constexpr (by == 4) return _mm512_srli_epi64(x, 32);
  return _mm512_bsrli_epi128(x, 8);
}

template <int Step, int shift>
RVK_VBMI RVK_INLINE inline void turn_words(__m512i* x) {
  using S = Separation<Step>;
  if constexpr (shift < S::kWords) {
    __m512i y[S::kWords];
#pragma GCC unroll 16
    for (int w = 0; w < S::kWords; ++w) y[w] = x[w];
#pragma GCC unroll 16
    for (int w = 0; w < S::kWords; ++w)
      x[w] = _mm512_mask_blend_epi8(S::places(shift), y[w], y[(w + S::kWords - shift) % S::kWords]);
    turn_words<Step, 2 * shift>(x);
  }
}

// x[i * kWords] for i < kBytes: byte i of the words of all of them comes to the i-th.
template <int Step, int shift>
RVK_VBMI RVK_INLINE inline void exchange_bytes(__m512i* x) {
  using S = Separation<Step>;
  if constexpr (shift < S::kBytes) {
#pragma GCC unroll 16
    for (int i = 0; i < S::kBytes; ++i) {
      if ((i & shift) != 0) continue;
      const __m512i a = x[i * S::kWords], b = x[(i + shift) * S::kWords];
      x[i * S::kWords] = _mm512_mask_blend_epi8(S::bytes(shift), a, bytes_on<shift>(b));
      x[(i + shift) * S::kWords] = _mm512_mask_blend_epi8(S::bytes(shift), bytes_back<shift>(a), b);
    }
    exchange_bytes<Step, 2 * shift>(x);
  }
}

// Interleaved values, `size` bytes of them, to to[b] + at for each of the `Step` bands that has a place to go to, with
// 0 from the last pixel to the next multiple of 64.
template <int Step>
RVK_VBMI void separate(const uint8_t* values, int64_t size, uint8_t* const* to, int64_t at) {
  using S = Separation<Step>;
  static constexpr typename S::Order kOrder = S::order();
  for (; size > 0; values += 64 * Step, size -= 64 * Step, at += 64) {
    __m512i x[Step];
    if (size >= 64 * Step) {
#pragma GCC unroll 16
      for (int k = 0; k < Step; ++k)
        x[k / S::kWords * S::kWords + k % S::kWords * S::kPlaces % S::kWords] = _mm512_loadu_si512(values + 64 * k);
    } else {
#pragma GCC unroll 16
      for (int k = 0; k < Step; ++k)
        x[k / S::kWords * S::kWords + k % S::kWords * S::kPlaces % S::kWords] =
            _mm512_maskz_loadu_epi8(first_bits(std::max<int64_t>(0, size - 64 * k)), values + 64 * k);
    }
#pragma GCC unroll 16
    for (int i = 0; i < S::kBytes; ++i) turn_words<Step, 1>(x + i * S::kWords);
#pragma GCC unroll 16
    for (int w = 0; w < S::kWords; ++w) {
      exchange_bytes<Step, 1>(x + w);
      const __m512i order = _mm512_load_si512(kOrder.of[w]);
#pragma GCC unroll 16
      for (int i = 0; i < S::kBytes; ++i)
        if (to[w * S::kBytes + i] != nullptr)
          _mm512_storeu_si512(to[w * S::kBytes + i] + at, _mm512_permutexvar_epi8(order, x[w + i * S::kWords]));
    }
  }
}

template <size_t... I>
constexpr auto separates(std::index_sequence<I...>) {
  return std::array{&separate<static_cast<int>(I) + 1>...};
}

#endif

}  // namespace

template <typename T>
ValueCounts<T>::ValueCounts(int64_t bands, int64_t values)
    : bands_(bands),
      values_(values),
      bins_(bins_of(values)),
      sliced_(std::is_same_v<T, uint8_t> && isa() >= Isa::vbmi) {
  // As many turns as tables fit; two where none does.
  const int64_t fit = std::max<int64_t>(2, kCache / static_cast<int64_t>(bins_ * sizeof(uint32_t)));
  turns_ = std::max<int64_t>(1, std::min(kWidest, fit) / std::max<int64_t>(1, bands));
  counts_.resize(static_cast<size_t>(turns_ * bands_ * bins_));
}

template <typename T>
ValueCounts<T>::ValueCounts(int64_t bands) : ValueCounts(bands, kValues<T>) {}

template <typename T>
void ValueCounts<T>::add(const T* const* bands, int64_t step, const uint8_t* valid, int64_t pixels) {
  std::vector<const T*> from(bands, bands + bands_);
  while (pixels > 0) {
    const int64_t n = std::min(pixels, kMost);
    if (pending_ + n > kMost) {
      std::vector<int64_t> sums(static_cast<size_t>(bands_ * values_));
      move_to(sums.data());
      spilled_ = std::move(sums);
    }
    pending_ += n;
    if (sliced_ && step <= kMostSliced)
      slices(from, step, valid, n);
    else
      tables(from, step, valid, n);
    for (const T*& f : from) f += n * step;
    if (valid != nullptr) valid += n;
    pixels -= n;
  }
}

template <typename T>
void ValueCounts<T>::tables(const std::vector<const T*>& bands, int64_t step, const uint8_t* valid, int64_t pixels) {
  static constexpr auto kRaise = raises<T>(std::make_index_sequence<kWidest>());
  const int64_t width = turns_ * bands_;
  std::vector<const T*> from(static_cast<size_t>(width));
  for (int64_t at = 0; at < pixels; at += kStretch) {
    const int64_t n = std::min(kStretch, pixels - at);
    int64_t kept = n;
    if (valid != nullptr) {
      const uint8_t* v = valid + at;
      kept = dispatch([=]() RVK_INLINE {
        int64_t sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += v[i] != 0;
        return sum;
      });
    }
    // Where most pixels count, all are counted and the others taken back.
    const bool most = 2 * kept > n;
    int64_t done = 0;
    if (most) {
      for (int64_t j = 0; j < width; ++j)
        from[static_cast<size_t>(j)] = bands[static_cast<size_t>(j % bands_)] + (at + j / bands_) * step;
      for (int64_t j = 0; j < width; j += kWidest) {
        const auto count = kRaise[static_cast<size_t>(std::min(kWidest, width - j) - 1)];
        count(from.data() + j, n / turns_, turns_ * step, counts_.data() + j * bins_, bins_);
      }
      done = n - n % turns_;
    }
    const auto one_by_one = [&](int64_t i, uint32_t change) {
      uint32_t* table = counts_.data() + i % turns_ * bands_ * bins_;
      for (int64_t b = 0; b < bands_; ++b)
        table[b * bins_ + bin(bands[static_cast<size_t>(b)][(at + i) * step])] += change;
    };
    for (int64_t i = done; i < n && most; ++i) one_by_one(i, 1);
    if (kept == n || kept == 0) continue;
    int64_t others[kStretch], m = 0;
    for (int64_t i = 0; i < n; ++i) {
      others[m] = i;
      m += (valid[at + i] != 0) != most ? 1 : 0;
    }
    for (int64_t k = 0; k < m; ++k) one_by_one(others[k], most ? ~uint32_t{0} : 1);
  }
}

template <typename T>
void ValueCounts<T>::slices([[maybe_unused]] const std::vector<const T*>& bands, [[maybe_unused]] int64_t step,
                            [[maybe_unused]] const uint8_t* valid, [[maybe_unused]] int64_t pixels) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, uint8_t>) {
    static constexpr auto kSeparate = separates(std::make_index_sequence<kMostSliced>());
    planes_.resize(static_cast<size_t>(bands_ * kPlane));
    bits_.resize(kBlock / 64);
    for (int64_t at = 0; at < pixels;) {
      const int64_t n = std::min(kBlock - filled_, pixels - at);
      const int64_t kept = valid_bits(valid == nullptr ? nullptr : valid + at, n, bits_.data() + filled_ / 64);
      if (kept > 0) {
        const bool direct = step == 1 && n == kBlock;
        for (size_t b = 0; b < bands.size();) {
          const T* values = bands[b] + at * step;
          if (direct) {
            count_block(values, kGroups, kept == kBlock ? nullptr : bits_.data(), values + kBlock,
                        counts_.data() + static_cast<int64_t>(b++) * bins_);
            continue;
          }
          // This band and those after it that stand behind it in the same pixel; nothing is read behind the last value.
          uint8_t* to[kMostSliced] = {};
          int64_t last = 0;
          for (const size_t first = b; b < bands.size(); ++b) {
            const auto place =
                static_cast<int64_t>(reinterpret_cast<intptr_t>(bands[b]) - reinterpret_cast<intptr_t>(bands[first]));
            if (place < 0 || place >= step || to[place] != nullptr) break;
            to[place] = planes_.data() + static_cast<int64_t>(b) * kPlane;
            last = std::max(last, place);
          }
          kSeparate[static_cast<size_t>(step - 1)](values, (n - 1) * step + last + 1, to, filled_);
        }
        if (!direct) {
          filled_ += (n + 63) / 64 * 64;
          kept_ += kept;
          if (filled_ == kBlock) flush(bands[0] + (at + n) * step);
        }
      }
      at += n;
    }
  }
#endif
}

template <typename T>
void ValueCounts<T>::flush([[maybe_unused]] const uint8_t* ahead) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, uint8_t>) {
    const int64_t groups = (filled_ + kGroup - 1) / kGroup;
    for (int64_t i = filled_; i < groups * kGroup; i += 64) bits_[static_cast<size_t>(i / 64)] = 0;
    for (int64_t b = 0; b < bands_ && groups > 0; ++b)
      count_block(planes_.data() + b * kPlane, groups, kept_ == groups * kGroup ? nullptr : bits_.data(),
                  ahead + b * kBlock, counts_.data() + b * bins_);
    filled_ = kept_ = 0;
  }
#endif
}

template <typename T>
void ValueCounts<T>::move_to(int64_t* histogram) {
  flush(planes_.data());
  for (int64_t t = 0; t < turns_ * bands_; ++t)
    for (int64_t v = 0; v < values_; ++v)
      histogram[t % bands_ * values_ + v] += std::exchange(counts_[static_cast<size_t>(t * bins_ + v)], 0);
  for (size_t k = 0; k < spilled_.size(); ++k) histogram[k] += std::exchange(spilled_[k], 0);
  pending_ = 0;
}

template class ValueCounts<uint8_t>;
template class ValueCounts<uint16_t>;
template class ValueCounts<int16_t>;

}  // namespace rvk
