// What mean, deviation, extrema and quantiles of bands are made of, in numbers that add up exactly: the result does not
// depend on threads, on portions, or on the order they come in.
//
// Integers: a histogram with one bin per value says everything.
// float32: every finite value is m * 2^(e - 150) with a whole number |m| < 2^24 and e = max(1, its exponent bits). Per
// exponent the sum of m and the sum of m * m are kept, the latter as low and high parts of 32 bits, since a count of
// 2^16 squares would fill 64 bits. The histogram has one bin per upper 16 bits of the value, put in order
// (ordered bits: they rise with the value, negative numbers having all bits turned and others the sign bit). Values
// that are not finite are left out.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "value_counts.h"

namespace rvk {

constexpr int64_t kFloatBins = 65536;
constexpr int64_t kExponents = 256;

// Where statistics grow.
struct Totals {
  int64_t* histogram;  // (bands, 256 or 65536): values from the least, or upper bits of the ordered bits
  int64_t* sums;       // float32 only: (bands, 3, kExponents), of m, and low and high part of the sum of m * m
  uint32_t* extrema;   // float32 only: (bands, 2), least and greatest ordered bits
};

// What ValueCounts is for integers; of one thread.
class FloatSums {
 public:
  explicit FloatSums(int64_t bands);
  ~FloatSums();
  void add(const float* const* bands, int64_t step, const uint8_t* valid, int64_t pixels);
  void move_to(const Totals& totals);

 private:
  struct Band;
  std::vector<Band> bands_;
  int64_t pending_ = 0;  // pixels since the squares were split into low and high parts
};

// T is uint8_t, uint16_t, int16_t or float.
template <typename T>
class Tally {
 public:
  explicit Tally(int64_t bands) : counts_(bands) {}

  // Pixel i of band b is bands[b][i * step]. valid (pixels): 0 = leave the pixel out; null = all count.
  void add(const T* const* bands, int64_t step, const uint8_t* valid, int64_t pixels) {
    counts_.add(bands, step, valid, pixels);
  }

  void move_to(const Totals& totals) {
    if constexpr (std::is_same_v<T, float>)
      counts_.move_to(totals);
    else
      counts_.move_to(totals.histogram);
  }

 private:
  std::conditional_t<std::is_same_v<T, float>, FloatSums, ValueCounts<T>> counts_;
};

// images (pixels, bands); valid (pixels) or null, as in Tally.
template <typename T>
void statistics(const T* images, const uint8_t* valid, int64_t pixels, int64_t bands, const Totals& totals,
                int threads);

}  // namespace rvk
