// What mean, deviation, extrema and quantiles of bands are made of, in numbers that add up exactly: the result does not
// depend on threads, on portions, or on the order they come in.
//
// Integers: a histogram with one bin per value says everything.
// float32: every finite value is m * 2^(e - 150) with a whole number |m| < 2^24 and e = max(1, its exponent bits). Per
// exponent the sum of m and the sum of m * m are kept, the latter as low and high parts of 32 bits, since a count of
// 2^16 squares would fill 64 bits. The histogram has one bin per upper 16 bits of the value, put in order
// (ordered_bits). Values that are not finite are left out.
#pragma once

#include <cstdint>
#include <cstring>

namespace rvk {

constexpr int64_t kFloatBins = 65536;
constexpr int64_t kExponents = 256;

// Rises with the value: negative numbers have all bits turned, others the sign bit.
inline uint32_t ordered_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// images (pixels, bands); valid (pixels), nothing or 0 = leave the pixel out; histogram (bands, 256 or 65536), added
// to.
template <typename T>
void statistics_integer(const T* images, const uint8_t* valid, int64_t pixels, int64_t bands, int64_t* histogram,
                        int threads);

// sums (bands, 3, kExponents): of m, and low and high part of the sum of m * m, added to. extrema (bands, 2): least and
// greatest ordered_bits, widened.
void statistics_float(const float* images, const uint8_t* valid, int64_t pixels, int64_t bands, int64_t* histogram,
                      int64_t* sums, uint32_t* extrema, int threads);

}  // namespace rvk
