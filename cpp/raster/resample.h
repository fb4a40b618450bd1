// Separable resampling along the axes of a raster, as GDAL does it for RasterIO and overviews.
//
// Output pixel i of an axis has its centre at c = origin + step (i + 1/2), in pixels of the raster, and is made of the
// pixels p that the raster has, each with a weight:
//   nearest   p = floor(c) alone
//   bilinear  max(0, 1 - |p + 1/2 - c| / max(1, |step|)): the kernel grows with the step, so that no pixel is passed
//             over. None when c is not on the raster
//   average   the length that [p, p + 1] shares with [c - |step| / 2, c + |step| / 2]
// A value is the sum over rows and columns of weight times value, divided by the sum of the weights, of those pixels
// that hold data. It depends on nothing but the raster, c and the step: not on the window that it is read with.
#pragma once

#include <cstdint>
#include <vector>

#include "raster/buffer.h"
#include "raster/pixels.h"

namespace rvk {

enum class Kernel { nearest, bilinear, average };

// What the output pixels of one axis are made of. The weights of each sum up to 1.
class Taps {
 public:
  // Output pixels [begin, end) from a raster of `extent` pixels.
  Taps(Kernel kernel, double origin, double step, int64_t begin, int64_t end, int64_t extent);

  int64_t size() const { return static_cast<int64_t>(first_.size()); }
  // The i-th output pixel is made of count(i) pixels from first(i) on; of none where the raster does not reach.
  int64_t first(int64_t i) const { return first_[i]; }
  int64_t count(int64_t i) const { return start_[i + 1] - start_[i]; }
  const float* weights(int64_t i) const { return weights_.data() + start_[i]; }
  // Pixels of the raster that output pixels [begin, end) are made of: [low, high), empty when there are none.
  struct Span {
    int64_t low, high;
  };
  Span span(int64_t begin, int64_t end) const;

 private:
  std::vector<int64_t> first_, start_{0};
  std::vector<float> weights_;
};

// Memory of one thread.
struct ResampleBuffers {
  Buffer row, missing_row, out_row, missing_out, values, missing;
};

// Output rows [begin, end) of `down`, all columns of `across`.
//   source     values (rows, cols, channels) of the rectangle `at` of the raster, which holds all pixels needed
//   nodata     per channel. A value that is nodata or NaN takes no part
//   valid      (rows, cols) of `at`: where it is 0 no channel takes part; null: nowhere
//   out        (end - begin, cols, channels): rounded (halves up) in integers; `fill` where a channel has no data
//   out_valid  (end - begin, cols): 1 where some channel has data, else 0
template <typename T>
void resample(const T* source, const Rect& at, const std::vector<NoData<T>>& nodata, const uint8_t* valid,
              const Taps& down, int64_t begin, int64_t end, const Taps& across, T fill, ResampleBuffers& buffers,
              T* out, uint8_t* out_valid);

}  // namespace rvk
