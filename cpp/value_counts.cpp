#include "value_counts.h"

#include <algorithm>
#include <array>
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
constexpr int64_t kGroups = 8;                // groups per block: masks and a block of four bands fit in 48 KiB
constexpr int64_t kBlock = kGroup * kGroups;  // pixels

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

// masks[i] = pixels where the bits of planes[3..0] are those of i, and `among` is set.
RVK_VBMI RVK_INLINE inline void minterms(const __m512i* planes, __m512i among, __m512i* masks) {
  const __m512i a = planes[3], b = planes[2], c = planes[1], d = planes[0];
  const __m512i pairs[4] = {_mm512_ternarylogic_epi64(among, a, b, 0x10), _mm512_ternarylogic_epi64(among, a, b, 0x20),
                            _mm512_ternarylogic_epi64(among, a, b, 0x40), _mm512_ternarylogic_epi64(among, a, b, 0x80)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    masks[4 * i + 0] = _mm512_ternarylogic_epi64(pairs[i], c, d, 0x10);
    masks[4 * i + 1] = _mm512_ternarylogic_epi64(pairs[i], c, d, 0x20);
    masks[4 * i + 2] = _mm512_ternarylogic_epi64(pairs[i], c, d, 0x40);
    masks[4 * i + 3] = _mm512_ternarylogic_epi64(pairs[i], c, d, 0x80);
  }
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
  alignas(64) __m512i high[kGroups][16];  // by upper half byte
  alignas(64) __m512i low[kGroups][16];
  uint32_t present[16];  // by upper half byte: bit k = group k has it
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
RVK_VBMI void count_shared_bits(const Masks& masks, uint32_t* counts) {
  for (int h = 0; h < 16; ++h) {
    uint32_t groups = masks.present[h];
    if (groups == 0) continue;
    __m512i a[16];
#pragma GCC unroll 16
    for (int l = 0; l < 16; ++l) a[l] = _mm512_setzero_si512();
    for (; groups != 0; groups &= groups - 1) {
      const int k = __builtin_ctz(groups);
      const __m512i high = masks.high[k][h];
#pragma GCC unroll 16
      for (int l = 0; l < Lows; ++l)
        a[l] = _mm512_add_epi64(a[l], _mm512_popcnt_epi64(_mm512_and_si512(high, masks.low[k][l])));
    }
    uint32_t* row = counts + 16 * h;
    _mm512_storeu_si512(row, _mm512_add_epi32(_mm512_loadu_si512(row), _mm512_cvtepu16_epi32(sums(a))));
  }
}

// values: whole groups; bits: one per value, 0 = leave it out; null = all count. counts (256) grow. From `ahead` on, as
// many bytes as are counted come into the cache: memory would rest while masks are compared.
RVK_VBMI void count_block(const uint8_t* values, int64_t groups, const uint64_t* bits, const uint8_t* ahead,
                          uint32_t* counts) {
  Masks masks;
  for (uint32_t& p : masks.present) p = 0;
  __m512i eights = _mm512_setzero_si512();
  for (int64_t k = 0; k < groups; ++k) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kGroup; i += 64) __builtin_prefetch(ahead + kGroup * k + i);
    __m512i planes[8];
    bit_planes(values + kGroup * k, planes);
    eights = _mm512_or_si512(eights, planes[3]);
    const __m512i all = _mm512_set1_epi64(-1);
    minterms(planes + 4, bits == nullptr ? all : in_plane_order(bits + 8 * k), masks.high[k]);
    minterms(planes, all, masks.low[k]);
    for (int h = 0; h < 16; ++h) {
      const bool any = _mm512_test_epi64_mask(masks.high[k][h], masks.high[k][h]) != 0;
      masks.present[h] |= static_cast<uint32_t>(any) << k;
    }
  }
  if (_mm512_test_epi64_mask(eights, eights) == 0)
    count_shared_bits<8>(masks, counts);
  else
    count_shared_bits<16>(masks, counts);
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

// [k]: of 64 pixels `Step` bytes apart, those whose byte lies in the k-th vector of 64 bytes.
template <int Step>
constexpr std::array<uint64_t, Step> pixels_by_vector() {
  std::array<uint64_t, Step> bits{};
  for (int i = 0; i < 64; ++i) bits[i * Step / 64] |= uint64_t{1} << i;
  return bits;
}

// The values of one band, `Step` bytes apart, side by side; 0 from `pixels` to the next multiple of 64.
template <int Step>
RVK_VBMI void gather(const uint8_t* values, int64_t pixels, uint8_t* plane) {
  static constexpr auto kPixels = pixels_by_vector<Step>();
  // Byte i * Step of `Step` vectors; the instruction looks at the lower six bits only.
  alignas(64) uint8_t places[64];
  for (int i = 0; i < 64; ++i) places[i] = static_cast<uint8_t>(i * Step);
  const __m512i place = _mm512_load_si512(places);
  for (int64_t i = 0; i < pixels; i += 64, values += 64 * Step) {
    // Nothing is read behind the last value.
    const int64_t size = (std::min<int64_t>(64, pixels - i) - 1) * Step + 1;
    __m512i found = _mm512_setzero_si512();
    if (size > 64 * (Step - 1)) {
#pragma GCC unroll 32
      for (int k = 0; k < Step - 1; ++k)
        found = _mm512_mask_permutexvar_epi8(found, kPixels[k], place, _mm512_loadu_si512(values + 64 * k));
      const __m512i last = _mm512_maskz_loadu_epi8(first_bits(size - 64 * (Step - 1)), values + 64 * (Step - 1));
      found = _mm512_mask_permutexvar_epi8(found, kPixels[Step - 1], place, last);
    } else {
      for (int k = 0; k * 64 < size; ++k) {
        const __m512i bytes = _mm512_maskz_loadu_epi8(first_bits(size - 64 * k), values + 64 * k);
        found = _mm512_mask_permutexvar_epi8(found, kPixels[k], place, bytes);
      }
    }
    _mm512_storeu_si512(plane + i, found);
  }
}

template <size_t... I>
constexpr auto gathers(std::index_sequence<I...>) {
  return std::array{&gather<static_cast<int>(I) + 1>...};
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
    static constexpr auto kGather = gathers(std::make_index_sequence<kMostSliced>());
    planes_.resize(static_cast<size_t>(bands_ * kBlock));
    bits_.resize(kBlock / 64);
    for (int64_t at = 0; at < pixels;) {
      const int64_t n = std::min(kBlock - filled_, pixels - at);
      const int64_t kept = valid_bits(valid == nullptr ? nullptr : valid + at, n, bits_.data() + filled_ / 64);
      if (kept > 0) {
        const bool direct = step == 1 && n == kBlock;
        for (size_t b = 0; b < bands.size(); ++b) {
          const T* values = bands[b] + at * step;
          uint8_t* plane = planes_.data() + static_cast<int64_t>(b) * kBlock + filled_;
          if (direct)
            count_block(values, kGroups, kept == kBlock ? nullptr : bits_.data(), values + kBlock,
                        counts_.data() + static_cast<int64_t>(b) * bins_);
          else
            kGather[static_cast<size_t>(step - 1)](values, n, plane);
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
      count_block(planes_.data() + b * kBlock, groups, kept_ == groups * kGroup ? nullptr : bits_.data(),
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
