#include "pixels.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "bits.h"
#include "dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 means its own _mm512_undefined_epi32 (bug 105593)
#endif

namespace rvk {

namespace {

// Calls f with the band count, as a constant for the common ones: compilers then load whole vectors and shuffle.
template <typename F>
inline RVK_INLINE void with_bands(int64_t bands, F&& f) {
  switch (bands) {
    case 1:
      return f(std::integral_constant<int64_t, 1>());
    case 2:
      return f(std::integral_constant<int64_t, 2>());
    case 3:
      return f(std::integral_constant<int64_t, 3>());
    case 4:
      return f(std::integral_constant<int64_t, 4>());
    default:
      return f(bands);
  }
}

template <typename T>
void split_values(const uint8_t* bytes, int64_t count, int64_t bands, const Planes& planes) {
  const T* from = reinterpret_cast<const T*>(bytes);
  dispatch([=]() RVK_INLINE {
    with_bands(bands, [&](auto step) RVK_INLINE {
      for (int64_t b = 0; b < step; ++b) {
        float* to = planes[b];
        for (int64_t c = 0; c < count; ++c) to[c] = static_cast<float>(from[c * step + b]);
      }
    });
  });
}

void look_up(const uint8_t* from, int64_t count, int64_t bands, const ByteTable* tables, const Planes& planes) {
  for (int64_t b = 0; b < bands; ++b) {
    const float* values = tables[b].values;
    float* to = planes[b];
    for (int64_t c = 0; c < count; ++c) to[c] = values[from[c * bands + b]];
  }
}

#if defined(__x86_64__)

struct ByteIndex {
  alignas(64) uint8_t at[64];
};

// Where the bytes of 64 values stand before they are interleaved to words: unpacking works within quarters.
constexpr ByteIndex unpack_order() {
  ByteIndex index{};
  for (int i = 0; i < 64; ++i) index.at[i] = static_cast<uint8_t>(16 * (i / 4 % 4) + 4 * (i / 16) + i % 4);
  return index;
}

// Position of band `band` of 64 pixels in up to four vectors.
template <int bands>
constexpr ByteIndex band_positions(int band) {
  ByteIndex index{};
  for (int i = 0; i < 64; ++i) {
    const int pixel = unpack_order().at[i];
    index.at[i] = static_cast<uint8_t>(pixel * bands + band);
  }
  return index;
}

struct Table256 {
  __m512i quarter[4];
};

RVK_VBMI inline RVK_INLINE __m512i look_up(const Table256& table, __m512i index, __mmask64 upper) {
  const __m512i low = _mm512_permutex2var_epi8(table.quarter[0], index, table.quarter[1]);
  const __m512i high = _mm512_permutex2var_epi8(table.quarter[2], index, table.quarter[3]);
  return _mm512_mask_blend_epi8(upper, low, high);
}

// Masks of the first `count` words and bytes of a vector; all and none where there are more and less.
inline RVK_INLINE __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count > 0 ? (1 << count) - 1 : 0);
}

inline RVK_INLINE __mmask64 first_bytes(int64_t count) {
  return count >= 64 ? ~__mmask64{0} : count > 0 ? (__mmask64{1} << count) - 1 : 0;
}

inline RVK_INLINE int64_t to_boundary(const float* to) {
  return static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) % 64 / sizeof(float));
}

// Bytes of up to four vectors, for `bands` bands; `second` are the positions in the third and fourth.
template <int bands>
RVK_VBMI inline RVK_INLINE __m512i shuffle(const __m512i (&from)[4], __m512i position, __mmask64 second) {
  const __m512i bytes = _mm512_permutex2var_epi8(from[0], position, from[1]);
  if (bands < 3) return bytes;
  if (bands == 3) return _mm512_mask_permutexvar_epi8(bytes, second, position, from[2]);
  return _mm512_mask_blend_epi8(second, bytes, _mm512_permutex2var_epi8(from[2], position, from[3]));
}

// One band of a row: its bytes out of up to four vectors, each byte of the float32 by a table of its own.
template <int bands>
struct BandTable {
  __m512i position;
  __mmask64 second;
  Table256 part[4];

  RVK_VBMI BandTable(int band, const ByteTable& table) {
    static constexpr ByteIndex kPositions[4] = {band_positions<bands>(0), band_positions<bands>(1 % bands),
                                                band_positions<bands>(2 % bands), band_positions<bands>(3 % bands)};
    position = _mm512_load_si512(kPositions[band].at);
    second = _mm512_movepi8_mask(position);
    for (int p = 0; p < 4; ++p)
      for (int q = 0; q < 4; ++q) part[p].quarter[q] = _mm512_load_si512(table.parts[p] + 64 * q);
  }

  // Of 64 pixels.
  RVK_VBMI inline RVK_INLINE void look_up(const __m512i (&source)[4], __m512i (&words)[4]) const {
    const __m512i index = shuffle<bands>(source, position, second);
    const __mmask64 upper = _mm512_movepi8_mask(index);
    const __m512i p0 = rvk::look_up(part[0], index, upper), p1 = rvk::look_up(part[1], index, upper);
    const __m512i p2 = rvk::look_up(part[2], index, upper), p3 = rvk::look_up(part[3], index, upper);
    const __m512i low0 = _mm512_unpacklo_epi8(p0, p1), low1 = _mm512_unpackhi_epi8(p0, p1);
    const __m512i high0 = _mm512_unpacklo_epi8(p2, p3), high1 = _mm512_unpackhi_epi8(p2, p3);
    words[0] = _mm512_unpacklo_epi16(low0, high0);
    words[1] = _mm512_unpackhi_epi16(low0, high0);
    words[2] = _mm512_unpacklo_epi16(low1, high1);
    words[3] = _mm512_unpackhi_epi16(low1, high1);
  }
};

// Bytes that are fetched before they are looked up: some strips of a few rows come one after the other, too short each
// for the processor to fetch the next by itself.
constexpr int64_t kAhead = 1 << 12;

template <int bands, bool streamed>
RVK_VBMI void look_up_band(const uint8_t* from, int64_t count, int band, const ByteTable& table, float* to) {
  const BandTable<bands> at(band, table);
  __m512i source[4] = {}, words[4];
  const auto part = [&](int64_t c, int64_t pixels) RVK_VBMI {
    for (int v = 0; v < bands; ++v)
      source[v] = _mm512_maskz_loadu_epi8(first_bytes(pixels * bands - 64 * v), from + c * bands + 64 * v);
    at.look_up(source, words);
    for (int v = 0; v < 4; ++v) _mm512_mask_storeu_epi32(to + c + 16 * v, first_lanes(pixels - 16 * v), words[v]);
  };
  const int64_t first = streamed ? std::min(to_boundary(to), count) : 0;
  if (first > 0) part(0, first);
  int64_t c = first;
  for (; c + 64 <= count; c += 64) {
    for (int v = 0; v < bands; ++v) {
      source[v] = _mm512_loadu_si512(from + c * bands + 64 * v);  // plain: masks cost time
      if (band == 0) _mm_prefetch(from + c * bands + 64 * v + kAhead, _MM_HINT_T0);
    }
    at.look_up(source, words);
    for (int v = 0; v < 4; ++v) {
      if constexpr (streamed) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to + c + 16 * v), words[v]);
      } else {
        _mm512_storeu_si512(to + c + 16 * v, words[v]);
      }
    }
  }
  if (c < count) part(c, count - c);
}

template <int bands>
void look_up_vbmi(const uint8_t* from, int64_t count, const ByteTable* tables, const Planes& planes, bool streamed) {
  for (int b = 0; b < bands; ++b)
    (streamed ? look_up_band<bands, true> : look_up_band<bands, false>)(from, count, b, tables[b], planes[b]);
}

#endif

void split_bytes(const uint8_t* from, int64_t count, int64_t bands, const ByteTable* tables, const Planes& planes,
                 [[maybe_unused]] bool streamed) {
#if defined(__x86_64__)
  if (isa() >= Isa::vbmi) {
    switch (bands) {
      case 1:
        return look_up_vbmi<1>(from, count, tables, planes, streamed);
      case 2:
        return look_up_vbmi<2>(from, count, tables, planes, streamed);
      case 3:
        return look_up_vbmi<3>(from, count, tables, planes, streamed);
      case 4:
        return look_up_vbmi<4>(from, count, tables, planes, streamed);
      default:
        break;
    }
  }
#endif
  look_up(from, count, bands, tables, planes);
}

constexpr int32_t kOrderOf255 = 0x437F0000;

template <typename T>
inline RVK_INLINE T rounded(float value) {
  float held;
  if constexpr (std::is_unsigned_v<T>) {
    // As integers they take one instruction to hold.
    constexpr int32_t kMost = sizeof(T) == 1 ? kOrderOf255 : 0x477FFF00;  // 65535
    held = float_of(static_cast<uint32_t>(std::min(std::max(order_of(value), 0), kMost)));
  } else {
    const float above = value > -32768.0f ? value : -32768.0f;
    held = above < 32767.0f ? above : 32767.0f;
  }
  // At this size float32 has whole numbers only, and ends in their bits.
  return static_cast<T>(bits_of(held + 0x1.8p23f));
}

struct Bfloat16 {
  uint16_t bits;
};

template <>
inline RVK_INLINE float rounded<float>(float value) {
  return value;
}

template <>
inline RVK_INLINE Bfloat16 rounded<Bfloat16>(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t half = 0x7FFF + (bits >> 16 & 1);
  const uint32_t nan = (bits >> 16 & 0x8000) | 0x7FC0;
  return {static_cast<uint16_t>(value == value ? (bits + half) >> 16 : nan)};
}

template <typename T>
void join_plane(const float* from, int64_t count, float mean, float inverse, T* to) {
  dispatch([=]() RVK_INLINE {
    for (int64_t c = 0; c < count; ++c) to[c] = rounded<T>((from[c] - mean) * inverse);
  });
}

template <typename T>
void join_pixels(const Planes& planes, int64_t count, int64_t bands, const float* mean, const float* inverse, T* to) {
  dispatch([=]() RVK_INLINE {
    with_bands(bands, [&](auto step) RVK_INLINE {
      for (int64_t c = 0; c < count; ++c)
        for (int64_t b = 0; b < step; ++b) to[c * step + b] = rounded<T>((planes[b][c] - mean[b]) * inverse[b]);
    });
  });
}

#if defined(__x86_64__)

RVK_V4 void stream_plane_v4(const float* from, int64_t count, float mean, float inverse, float* to) {
  const __m512 means = _mm512_set1_ps(mean), inverses = _mm512_set1_ps(inverse);
  const auto part = [&](int64_t c, int64_t values) RVK_V4 {
    const __mmask16 mask = first_lanes(values);
    const __m512 value = _mm512_maskz_loadu_ps(mask, from + c);
    _mm512_mask_storeu_ps(to + c, mask, _mm512_mul_ps(_mm512_sub_ps(value, means), inverses));
  };
  int64_t c = std::min(to_boundary(to), count);
  if (c > 0) part(0, c);
  for (; c + 16 <= count; c += 16)
    _mm512_stream_ps(to + c, _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(from + c), means), inverses));
  if (c < count) part(c, count - c);
}

// Where, in four vectors of 64 packed values, the bytes of vector `part` of interleaved pixels stand.
template <int bands>
constexpr ByteIndex packed_positions(int part) {
  ByteIndex index{};
  for (int i = 0; i < 64; ++i) {
    const int byte = 64 * part + i;
    index.at[i] = static_cast<uint8_t>(byte % bands * 64 + unpack_order().at[byte / bands % 64]);
  }
  return index;
}

// 64 values to bytes as `rounded` has them. What is negative needs no hand: packing holds it to 0. Packing works within
// quarters: bytes come in the order of unpacking.
RVK_VBMI inline RVK_INLINE __m512i packed(const __m512 (&values)[4]) {
  __m512i whole[4];
  for (int v = 0; v < 4; ++v) {
    const __m512i held = _mm512_min_epi32(_mm512_castps_si512(values[v]), _mm512_set1_epi32(kOrderOf255));
    whole[v] = _mm512_cvtps_epi32(_mm512_castsi512_ps(held));
  }
  return _mm512_packus_epi16(_mm512_packs_epi32(whole[0], whole[1]), _mm512_packs_epi32(whole[2], whole[3]));
}

// 64 packed pixels, or when not `all`, the first `count` of them, as interleaved ones.
template <int bands, bool all>
RVK_VBMI inline RVK_INLINE void store_block(const __m512i (&band)[4], int64_t count, uint8_t* to) {
  static constexpr ByteIndex kPositions[4] = {packed_positions<bands>(0), packed_positions<bands>(1),
                                              packed_positions<bands>(2), packed_positions<bands>(3)};
  for (int part = 0; part < bands; ++part) {
    const __m512i position = _mm512_load_si512(kPositions[part].at);
    const __m512i bytes = shuffle<bands>(band, position, _mm512_movepi8_mask(position));
    if (all) {
      _mm512_storeu_si512(to + 64 * part, bytes);
    } else {
      _mm512_mask_storeu_epi8(to + 64 * part, first_bytes(count * bands - 64 * part), bytes);
    }
  }
}

// 64 pixels, or when not `all`, `count` of them.
template <int bands, bool all>
RVK_VBMI inline RVK_INLINE void join_block(const Planes& planes, int64_t c, int64_t count, const __m512* mean,
                                           const __m512* inverse, uint8_t* to) {
  __m512i band[4] = {};
  for (int b = 0; b < bands; ++b) {
    __m512 values[4];
    for (int v = 0; v < 4; ++v) {
      const float* from = planes[b] + c + 16 * v;
      const __m512 value = all ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(first_lanes(count - 16 * v), from);
      values[v] = _mm512_mul_ps(_mm512_sub_ps(value, mean[b]), inverse[b]);
    }
    band[b] = packed(values);
  }
  store_block<bands, all>(band, count, to + c * bands);
}

template <int bands>
RVK_VBMI void join_bytes_vbmi(const Planes& planes, int64_t count, const float* mean, const float* inverse,
                              uint8_t* to) {
  __m512 means[bands], inverses[bands];
  for (int b = 0; b < bands; ++b) {
    means[b] = _mm512_set1_ps(mean[b]);
    inverses[b] = _mm512_set1_ps(inverse[b]);
  }
  int64_t c = 0;
  for (; c + 64 <= count; c += 64) join_block<bands, true>(planes, c, 64, means, inverses, to);
  if (c < count) join_block<bands, false>(planes, c, count - c, means, inverses, to);
}

// All in registers: planes in memory would cost as much as the sums.
template <int bands>
RVK_VBMI void turn_bytes_vbmi(const uint8_t* from, int64_t count, const ByteTable* tables, const float* matrix,
                              uint8_t* to) {
  const BandTable<bands> red(0, tables[0]), green(1, tables[1]), blue(2, tables[2]), last(bands - 1, tables[bands - 1]);
  __m512 m[9];
  for (int i = 0; i < 9; ++i) m[i] = _mm512_set1_ps(matrix[i]);
  __m512i source[4] = {}, band[4] = {};
  const auto turn = [&]() RVK_VBMI RVK_INLINE {
    __m512i r[4], g[4], b[4];
    red.look_up(source, r);
    green.look_up(source, g);
    blue.look_up(source, b);
    __m512 turned[3][4];
    for (int v = 0; v < 4; ++v) {
      const __m512 x = _mm512_castsi512_ps(r[v]), y = _mm512_castsi512_ps(g[v]), z = _mm512_castsi512_ps(b[v]);
      for (int k = 0; k < 3; ++k)
        turned[k][v] = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(m[3 * k], x), _mm512_mul_ps(m[3 * k + 1], y)),
                                     _mm512_mul_ps(m[3 * k + 2], z));
    }
    for (int k = 0; k < 3; ++k) band[k] = packed(turned[k]);
    if constexpr (bands == 4) {
      __m512i words[4];
      last.look_up(source, words);
      band[3] = packed({_mm512_castsi512_ps(words[0]), _mm512_castsi512_ps(words[1]), _mm512_castsi512_ps(words[2]),
                        _mm512_castsi512_ps(words[3])});
    }
  };
  int64_t c = 0;
  for (; c + 64 <= count; c += 64) {
    for (int v = 0; v < bands; ++v) {
      source[v] = _mm512_loadu_si512(from + c * bands + 64 * v);
      _mm_prefetch(from + c * bands + 64 * v + kAhead, _MM_HINT_T0);
    }
    turn();
    store_block<bands, true>(band, 64, to + c * bands);
  }
  if (c == count) return;
  for (int v = 0; v < bands; ++v)
    source[v] = _mm512_maskz_loadu_epi8(first_bytes((count - c) * bands - 64 * v), from + c * bands + 64 * v);
  turn();
  store_block<bands, false>(band, count - c, to + c * bands);
}

// Whether this machine has a faster way than join_pixels for so many bands, and has gone it.
bool join_bytes(const Planes& planes, int64_t count, int64_t bands, const float* mean, const float* inverse,
                uint8_t* to) {
  if (isa() < Isa::vbmi || bands < 2 || bands > 4) return false;
  (bands == 2   ? join_bytes_vbmi<2>
   : bands == 3 ? join_bytes_vbmi<3>
                : join_bytes_vbmi<4>)(planes, count, mean, inverse, to);
  return true;
}

#endif

template <typename T>
void join_values(const Planes& planes, int64_t count, int64_t bands, const float* mean, const float* inverse, void* out,
                 int64_t first, int64_t plane) {
  T* to = static_cast<T*>(out) + first;
  if (plane > 0 || bands == 1) {
    for (int64_t b = 0; b < bands; ++b) join_plane(planes[b], count, mean[b], inverse[b], to + b * plane);
    return;
  }
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, uint8_t>) {
    if (join_bytes(planes, count, bands, mean, inverse, to)) return;
  }
#endif
  join_pixels(planes, count, bands, mean, inverse, to);
}

void move_plain(const uint8_t* from, int64_t row_step, int64_t col_step, int64_t rows, int64_t cols, int64_t size,
                uint8_t* to, int64_t to_step) {
  const auto move = [&](auto bytes) RVK_INLINE {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        std::memcpy(to + r * to_step + c * bytes, from + r * row_step + c * col_step, static_cast<size_t>(bytes));
  };
  // A copy of a size known when compiling is a load and a store.
  switch (size) {
    case 1:
      return move(std::integral_constant<int64_t, 1>());
    case 2:
      return move(std::integral_constant<int64_t, 2>());
    case 3:
      return move(std::integral_constant<int64_t, 3>());
    case 4:
      return move(std::integral_constant<int64_t, 4>());
    case 6:
      return move(std::integral_constant<int64_t, 6>());
    case 8:
      return move(std::integral_constant<int64_t, 8>());
    case 12:
      return move(std::integral_constant<int64_t, 12>());
    case 16:
      return move(std::integral_constant<int64_t, 16>());
    default:
      return move(size);
  }
}

#if defined(__x86_64__)

constexpr int kBlock = 16;  // pixels on a side

// Sixteen pixels of `size` <= 4 bytes to one word each, and back.
template <int size>
struct Words {
  static constexpr __mmask64 kMask = ~__mmask64{0} >> (64 - kBlock * size);

  static constexpr ByteIndex spread() {
    ByteIndex index{};
    for (int i = 0; i < 64; ++i) index.at[i] = static_cast<uint8_t>(i / 4 * size + i % 4);
    return index;
  }

  static constexpr ByteIndex gather(bool reverse) {
    ByteIndex index{};
    for (int i = 0; i < kBlock * size; ++i)
      index.at[i] = static_cast<uint8_t>((reverse ? kBlock - 1 - i / size : i / size) * 4 + i % size);
    return index;
  }

  // Masks only where no plain load or store has the size: they cost several times as much.
  RVK_VBMI static inline RVK_INLINE __m512i load(const uint8_t* from) {
    static constexpr ByteIndex kSpread = spread();
    __m512i bytes;
    if constexpr (size == 1) {
      bytes = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    } else if constexpr (size == 2) {
      bytes = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    } else if constexpr (size == 3) {
      const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      bytes = _mm512_inserti32x4(_mm512_castsi256_si512(first),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 32)), 2);
    } else {
      bytes = _mm512_loadu_si512(from);
    }
    return _mm512_permutexvar_epi8(_mm512_load_si512(kSpread.at), bytes);
  }

  RVK_VBMI static inline RVK_INLINE void store(uint8_t* to, __m512i words, bool reverse) {
    static constexpr ByteIndex kGather = gather(false), kReverse = gather(true);
    const __m512i bytes = _mm512_permutexvar_epi8(_mm512_load_si512(reverse ? kReverse.at : kGather.at), words);
    if constexpr (size == 1) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_castsi512_si128(bytes));
    } else if constexpr (size == 2) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(bytes));
    } else if constexpr (size == 3) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(bytes));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 32), _mm512_extracti32x4_epi32(bytes, 2));
    } else {
      _mm512_storeu_si512(to, bytes);
    }
  }
};

// Rows and columns of a 16 x 16 matrix of words change places.
RVK_V4 inline RVK_INLINE void transpose(__m512i (&x)[kBlock]) {
  __m512i y[kBlock];
  for (int i = 0; i < kBlock; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < kBlock; i += 4)
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
      x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  // x[4 g + k]: column k + 4 l of rows 4 g to 4 g + 3 in quarter l.
  for (int k = 0; k < 4; ++k) {
    const __m512i a = _mm512_shuffle_i32x4(x[k], x[4 + k], 0x88), b = _mm512_shuffle_i32x4(x[8 + k], x[12 + k], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(x[k], x[4 + k], 0xDD), d = _mm512_shuffle_i32x4(x[8 + k], x[12 + k], 0xDD);
    y[k] = _mm512_shuffle_i32x4(a, b, 0x88);
    y[8 + k] = _mm512_shuffle_i32x4(a, b, 0xDD);
    y[4 + k] = _mm512_shuffle_i32x4(c, d, 0x88);
    y[12 + k] = _mm512_shuffle_i32x4(c, d, 0xDD);
  }
  for (int i = 0; i < kBlock; ++i) x[i] = y[i];
}

// Output rows are source columns: row_step is one pixel to either side. rows, cols >= 16; the last blocks overlap.
template <int size>
RVK_VBMI void move_columns(const uint8_t* from, int64_t row_step, int64_t col_step, int64_t rows, int64_t cols,
                           uint8_t* to, int64_t to_step) {
  for (int64_t row = 0; row < rows; row += kBlock) {
    const int64_t r = std::min(row, rows - kBlock);
    const uint8_t* line = from + (row_step > 0 ? r : r + kBlock - 1) * row_step;
    for (int64_t col = 0; col < cols; col += kBlock) {
      const int64_t c = std::min(col, cols - kBlock);
      __m512i x[kBlock];
      for (int i = 0; i < kBlock; ++i) x[i] = Words<size>::load(line + (c + i) * col_step);
      transpose(x);
      uint8_t* block = to + c * size;
      for (int i = 0; i < kBlock; ++i)
        Words<size>::store(block + (row_step > 0 ? r + i : r + kBlock - 1 - i) * to_step, x[i], false);
    }
  }
}

// Rows the other way round: col_step is one pixel to the left. cols >= 16.
template <int size>
RVK_VBMI void move_mirrored(const uint8_t* from, int64_t row_step, int64_t rows, int64_t cols, uint8_t* to,
                            int64_t to_step) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t col = 0; col < cols; col += kBlock) {
      const int64_t c = std::min(col, cols - kBlock);
      const __m512i words = Words<size>::load(from + r * row_step - (c + kBlock - 1) * size);
      Words<size>::store(to + r * to_step + c * size, words, true);
    }
}

template <int size>
bool move_vbmi(const uint8_t* from, int64_t row_step, int64_t col_step, int64_t rows, int64_t cols, uint8_t* to,
               int64_t to_step) {
  if (cols < kBlock) return false;
  if (col_step == -size) {
    move_mirrored<size>(from, row_step, rows, cols, to, to_step);
  } else if ((row_step == size || row_step == -size) && rows >= kBlock) {
    move_columns<size>(from, row_step, col_step, rows, cols, to, to_step);
  } else {
    return false;
  }
  return true;
}

#endif

#if defined(__x86_64__)

// Whole cache lines from byte `at` on; returns the first byte behind them.
int64_t stream_lines(uint8_t* out, const uint8_t* in, int64_t at, int64_t bytes) {
  for (; at + 64 <= bytes; at += 64)
    for (int64_t part = 0; part < 64; part += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + at + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + at + part)));
  return at;
}

RVK_V4 int64_t stream_lines_v4(uint8_t* out, const uint8_t* in, int64_t at, int64_t bytes) {
  for (; at + 64 <= bytes; at += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + at), _mm512_loadu_si512(in + at));
  return at;
}

#endif

void stream(uint8_t* out, const uint8_t* in, int64_t bytes) {
#if defined(__x86_64__)
  const int64_t head = std::min(bytes, -reinterpret_cast<intptr_t>(out) & 63);
  std::memcpy(out, in, static_cast<size_t>(head));
  const int64_t at = (isa() >= Isa::v4 ? stream_lines_v4 : stream_lines)(out, in, head, bytes);
  std::memcpy(out + at, in + at, static_cast<size_t>(bytes - at));
#else
  std::memcpy(out, in, static_cast<size_t>(bytes));
#endif
}

}  // namespace

int64_t value_size(PixelType type) {
  switch (type) {
    case PixelType::u8:
      return 1;
    case PixelType::f32:
      return 4;
    default:
      return 2;
  }
}

void ByteTable::find_parts() {
  for (int v = 0; v < 256; ++v) {
    uint32_t bits;
    std::memcpy(&bits, values + v, sizeof bits);
    for (int p = 0; p < 4; ++p) parts[p][v] = static_cast<uint8_t>(bits >> (8 * p));
  }
}

void split_row(const uint8_t* from, PixelType type, int64_t count, int64_t bands, const ByteTable* tables,
               const Planes& planes, bool streamed) {
  switch (type) {
    case PixelType::u8:
      return split_bytes(from, count, bands, tables, planes, streamed);
    case PixelType::u16:
      return split_values<uint16_t>(from, count, bands, planes);
    case PixelType::i16:
      return split_values<int16_t>(from, count, bands, planes);
    default:
      return split_values<float>(from, count, bands, planes);
  }
}

void join_row(const Planes& planes, int64_t count, int64_t bands, const float* mean, const float* inverse, void* out,
              PixelType type, int64_t first, int64_t plane) {
  switch (type) {
    case PixelType::u8:
      return join_values<uint8_t>(planes, count, bands, mean, inverse, out, first, plane);
    case PixelType::u16:
      return join_values<uint16_t>(planes, count, bands, mean, inverse, out, first, plane);
    case PixelType::i16:
      return join_values<int16_t>(planes, count, bands, mean, inverse, out, first, plane);
    case PixelType::f32:
      return join_values<float>(planes, count, bands, mean, inverse, out, first, plane);
    case PixelType::bf16:
      return join_values<Bfloat16>(planes, count, bands, mean, inverse, out, first, plane);
  }
}

bool turn_bytes([[maybe_unused]] const uint8_t* from, [[maybe_unused]] int64_t count, [[maybe_unused]] int64_t bands,
                [[maybe_unused]] const ByteTable* tables, [[maybe_unused]] const float* matrix,
                [[maybe_unused]] uint8_t* to) {
#if defined(__x86_64__)
  if (isa() >= Isa::vbmi && (bands == 3 || bands == 4)) {
    (bands == 3 ? turn_bytes_vbmi<3> : turn_bytes_vbmi<4>)(from, count, tables, matrix, to);
    return true;
  }
#endif
  return false;
}

bool stream_planes([[maybe_unused]] const Planes& planes, [[maybe_unused]] int64_t count,
                   [[maybe_unused]] int64_t bands, [[maybe_unused]] const float* mean,
                   [[maybe_unused]] const float* inverse, [[maybe_unused]] float* to, [[maybe_unused]] int64_t plane) {
#if defined(__x86_64__)
  if (isa() >= Isa::v4) {
    for (int64_t b = 0; b < bands; ++b) stream_plane_v4(planes[b], count, mean[b], inverse[b], to + b * plane);
    return true;
  }
#endif
  return false;
}

void stream_row(const void* from, int64_t from_plane, int64_t count, int64_t bands, int64_t size, void* out,
                int64_t first, int64_t plane) {
  const auto* row = static_cast<const uint8_t*>(from);
  uint8_t* to = static_cast<uint8_t*>(out) + first * size;
  if (from_plane == 0) return stream(to, row, count * bands * size);
  for (int64_t b = 0; b < bands; ++b) stream(to + b * plane * size, row + b * from_plane * size, count * size);
}

void finish_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

void move_pixels(const uint8_t* from, int64_t row_step, int64_t col_step, int64_t rows, int64_t cols, int64_t size,
                 uint8_t* to, int64_t to_step) {
  if (rows <= 0 || cols <= 0) return;
  if (col_step == size) {
    if (row_step == cols * size && to_step == row_step) {
      std::memcpy(to, from, static_cast<size_t>(rows * row_step));
      return;
    }
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(to + r * to_step, from + r * row_step, static_cast<size_t>(cols * size));
    return;
  }
#if defined(__x86_64__)
  if (isa() >= Isa::vbmi) {
    bool moved = false;
    switch (size) {
      case 1:
        moved = move_vbmi<1>(from, row_step, col_step, rows, cols, to, to_step);
        break;
      case 2:
        moved = move_vbmi<2>(from, row_step, col_step, rows, cols, to, to_step);
        break;
      case 3:
        moved = move_vbmi<3>(from, row_step, col_step, rows, cols, to, to_step);
        break;
      case 4:
        moved = move_vbmi<4>(from, row_step, col_step, rows, cols, to, to_step);
        break;
      default:
        break;
    }
    if (moved) return;
  }
#endif
  move_plain(from, row_step, col_step, rows, cols, size, to, to_step);
}

}  // namespace rvk
