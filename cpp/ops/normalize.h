// (value - mean) * inverse per band, where inverse = 1 / standard deviation, from interleaved pixels (n, rows, cols,
// bands) of uint8, uint16, int16 or float32 to float32 or bfloat16, interleaved (NHWC) or planar (NCHW). Float32
// arithmetic in this order; bfloat16 by rounding to nearest even.
#pragma once

#include <cstdint>

#include "pixels.h"

namespace rvk {

// images (n, pixels, bands); mean, inverse (bands); out (n, pixels, bands), or (n, bands, pixels) when planar.
void normalize(const Pixels& images, int64_t n, int64_t pixels, int64_t bands, const float* mean, const float* inverse,
               bool planar, void* out, PixelType out_type, int threads);

}  // namespace rvk
