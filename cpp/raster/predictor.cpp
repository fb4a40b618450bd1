#include "raster/predictor.h"

#include <cstring>

#include "dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rvk {

namespace {

// From value number `from` on; the `samples` values before are final.
template <typename T>
void add_up(T* row, int64_t from, int64_t values, int64_t samples) {
  for (int64_t i = from; i < values; ++i) row[i] = static_cast<T>(row[i] + row[i - samples]);
}

#if defined(__x86_64__)

// A lane of 16 bytes holds as many whole pixels as fit. They are added up among themselves by doubling distances.
struct Lane {
  explicit Lane(int64_t pixel) : step(16 / pixel * pixel) {
    for (int64_t by = pixel; by < step; by *= 2, ++steps)
      for (int64_t i = 0; i < 16; ++i) shifts[steps][i] = static_cast<int8_t>(i < by ? -1 : i - by);
    for (int64_t i = 0; i < 16; ++i) last[i] = static_cast<int8_t>(step - pixel + i % pixel);
  }
  int64_t step;                      // bytes of its whole pixels
  int steps = 0;                     // doublings
  alignas(16) int8_t shifts[4][16];  // byte shuffle of each doubling: to the right, zeros come in
  alignas(16) int8_t last[16];       // byte shuffle: the last whole pixel in every place
};

template <typename T>
RVK_V3 inline __m128i add(__m128i a, __m128i b) {
  if constexpr (sizeof(T) == 1) return _mm_add_epi8(a, b);
  if constexpr (sizeof(T) == 2) return _mm_add_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm_add_epi32(a, b);
  return _mm_add_epi64(a, b);
}

template <typename T, int kSteps>
RVK_V3 void add_up_v3(T* pixels, int64_t rows, int64_t values, int64_t samples, const Lane& lane) {
  const int64_t step = lane.step, end = values * static_cast<int64_t>(sizeof(T));
  __m128i shifts[kSteps + 1];
  for (int s = 0; s < kSteps; ++s) shifts[s] = _mm_load_si128(reinterpret_cast<const __m128i*>(lane.shifts[s]));
  const __m128i last = _mm_load_si128(reinterpret_cast<const __m128i*>(lane.last));
  for (int64_t r = 0; r < rows; ++r) {
    T* row = pixels + r * values;
    if (end < 16) {
      add_up(row, samples, values, samples);
      continue;
    }
    auto* bytes = reinterpret_cast<uint8_t*>(row);
    __m128i carry = _mm_setzero_si128();
    __m128i now = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    int64_t at = 0;
    for (; at + step + 16 <= end; at += step) {
      // Read before this vector is written, which spoils the bytes behind its whole pixels.
      const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + at + step));
      for (int s = 0; s < kSteps; ++s) now = add<T>(now, _mm_shuffle_epi8(now, shifts[s]));
      now = add<T>(now, carry);
      carry = _mm_shuffle_epi8(now, last);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + at), now);
      now = next;
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + at), now);
    const int64_t done = at / static_cast<int64_t>(sizeof(T));
    add_up(row, done > samples ? done : samples, values, samples);
  }
}

template <typename T>
RVK_V4 inline __m512i add(__m512i a, __m512i b) {
  if constexpr (sizeof(T) == 1) return _mm512_add_epi8(a, b);
  if constexpr (sizeof(T) == 2) return _mm512_add_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm512_add_epi32(a, b);
  return _mm512_add_epi64(a, b);
}

// Four lanes at a time, where they hold nothing but whole pixels: each is added up by itself, then gets the sum of the
// lanes before it, and of the four before. (GCC 12 takes intrinsics without a mask for uses of unset values.)
template <typename T, int kSteps>
RVK_V4 void add_up_v4(T* pixels, int64_t rows, int64_t values, const Lane& lane) {
  const int64_t end = values * static_cast<int64_t>(sizeof(T));
  __m512i shifts[kSteps + 1];
  for (int s = 0; s <= kSteps; ++s)
    shifts[s] = _mm512_maskz_broadcast_i32x4(
        0xffff, _mm_load_si128(reinterpret_cast<const __m128i*>(s < kSteps ? lane.shifts[s] : lane.last)));
  for (int64_t r = 0; r < rows; ++r) {
    auto* bytes = reinterpret_cast<uint8_t*>(pixels + r * values);
    __m512i carry = _mm512_setzero_si512();
    for (int64_t at = 0; at < end; at += 64) {
      const __mmask64 inside = end - at >= 64 ? ~__mmask64{0} : (__mmask64{1} << (end - at)) - 1;
      __m512i now = _mm512_maskz_loadu_epi8(inside, bytes + at);
      for (int s = 0; s < kSteps; ++s) now = add<T>(now, _mm512_shuffle_epi8(now, shifts[s]));
      const __m512i sums = _mm512_shuffle_epi8(now, shifts[kSteps]);  // of each lane, in all its places
      // Lanes 0, s0, s1, s2; then 0, s0, s0 + s1, s1 + s2; then 0, s0, s0 + s1, s0 + s1 + s2.
      __m512i before = _mm512_maskz_shuffle_i64x2(0xfc, sums, sums, 0x90);
      before = add<T>(before, _mm512_maskz_shuffle_i64x2(0xf0, before, before, 0x90));
      before = add<T>(before, _mm512_maskz_shuffle_i64x2(0xf0, before, before, 0x40));
      now = add<T>(add<T>(now, before), carry);
      const __m512i through = add<T>(sums, before);
      carry = add<T>(carry, _mm512_maskz_shuffle_i64x2(0xff, through, through, 0xff));
      _mm512_mask_storeu_epi8(bytes + at, inside, now);
    }
  }
}

template <typename T, int kSteps>
void add_up_lanes(T* pixels, int64_t rows, int64_t values, int64_t samples, const Lane& lane) {
  if (isa() >= Isa::v4 && lane.step == 16) return add_up_v4<T, kSteps>(pixels, rows, values, lane);
  add_up_v3<T, kSteps>(pixels, rows, values, samples, lane);
}

#endif

template <typename T>
void add_up_rows(T* pixels, int64_t rows, int64_t values, int64_t samples) {
#if defined(__x86_64__)
  if (isa() >= Isa::v3 && samples * static_cast<int64_t>(sizeof(T)) <= 16) {
    const Lane lane(samples * static_cast<int64_t>(sizeof(T)));
    if (lane.steps == 0) return add_up_lanes<T, 0>(pixels, rows, values, samples, lane);
    if (lane.steps == 1) return add_up_lanes<T, 1>(pixels, rows, values, samples, lane);
    if (lane.steps == 2) return add_up_lanes<T, 2>(pixels, rows, values, samples, lane);
    if (lane.steps == 3) return add_up_lanes<T, 3>(pixels, rows, values, samples, lane);
    return add_up_lanes<T, 4>(pixels, rows, values, samples, lane);
  }
#endif
  if (samples == 1) {  // each value waits for the one before
    for (int64_t r = 0; r < rows; ++r) add_up(pixels + r * values, 1, values, 1);
    return;
  }
  dispatch([=]() RVK_INLINE {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = samples; i < values; i += samples) {
        const T* __restrict left = pixels + r * values + i - samples;
        T* __restrict now = pixels + r * values + i;
        for (int64_t s = 0; s < samples; ++s) now[s] = static_cast<T>(now[s] + left[s]);
      }
  });
}

template <typename T>
void swap_all(T* values, int64_t count) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) {
      if constexpr (sizeof(T) == 2) values[i] = __builtin_bswap16(values[i]);
      if constexpr (sizeof(T) == 4) values[i] = __builtin_bswap32(values[i]);
      if constexpr (sizeof(T) == 8) values[i] = __builtin_bswap64(values[i]);
    }
  });
}

// The highest bytes of `count` values, then the next lower ones, and so on, to values.
template <typename T>
void join_planes(const uint8_t* planes, T* values, int64_t count) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) {
      T value = 0;
      for (size_t b = 0; b < sizeof(T); ++b)
        value |= static_cast<T>(planes[static_cast<int64_t>(b) * count + i]) << (8 * (sizeof(T) - 1 - b));
      values[i] = value;
    }
  });
}

}  // namespace

void swap_bytes(uint8_t* pixels, int64_t values, int bytes) {
  if (bytes == 2) swap_all(reinterpret_cast<uint16_t*>(pixels), values);
  if (bytes == 4) swap_all(reinterpret_cast<uint32_t*>(pixels), values);
  if (bytes == 8) swap_all(reinterpret_cast<uint64_t*>(pixels), values);
}

void undo_differences(uint8_t* pixels, int64_t rows, int64_t cols, int64_t samples, int bytes) {
  const int64_t values = cols * samples;
  if (bytes == 1) add_up_rows(pixels, rows, values, samples);
  if (bytes == 2) add_up_rows(reinterpret_cast<uint16_t*>(pixels), rows, values, samples);
  if (bytes == 4) add_up_rows(reinterpret_cast<uint32_t*>(pixels), rows, values, samples);
  if (bytes == 8) add_up_rows(reinterpret_cast<uint64_t*>(pixels), rows, values, samples);
}

void undo_float_planes(uint8_t* pixels, int64_t rows, int64_t cols, int64_t samples, int bytes, uint8_t* scratch) {
  const int64_t count = cols * samples;
  const size_t row_bytes = static_cast<size_t>(count * bytes);
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* row = pixels + static_cast<size_t>(r) * row_bytes;
    add_up_rows(row, 1, count * bytes, samples);
    std::memcpy(scratch, row, row_bytes);
    if (bytes == 4) join_planes(scratch, reinterpret_cast<uint32_t*>(row), count);
    if (bytes == 8) join_planes(scratch, reinterpret_cast<uint64_t*>(row), count);
  }
}

}  // namespace rvk
