// (value - mean) * inverse per band, where inverse = 1 / standard deviation, from interleaved pixels (n, rows, cols,
// bands) of uint8, uint16 or float32 to float32, interleaved (NHWC) or planar (NCHW). Float32 arithmetic in this order.
#pragma once

#include <cstdint>
#include <vector>

namespace rvk {

// Pixels in memory: the type of one value decides how `data` is read.
enum class PixelType { u8, u16, f32 };

struct Pixels {
  const void* data;
  PixelType type;
};

// Per-band numbers repeated over `cols` pixels, so that a loop over an interleaved row needs no band index.
std::vector<float> repeat_bands(const float* per_band, int64_t bands, int64_t cols);

// to[i] = float(pixels[first + i]) for i < count.
void widen(const Pixels& pixels, int64_t first, int64_t count, float* to);

// One row of `cols` interleaved pixels. mean and inverse are repeated over the row (repeat_bands). plane = 0 writes
// interleaved; otherwise value (c, b) goes to out[b * plane + c].
void normalize_row(const float* values, int64_t cols, int64_t bands, const float* mean, const float* inverse,
                   float* out, int64_t plane);

// images (n, pixels, bands); mean, inverse (bands); out (n, pixels, bands), or (n, bands, pixels) when planar.
void normalize(const Pixels& images, int64_t n, int64_t pixels, int64_t bands, const float* mean, const float* inverse,
               bool planar, float* out, int threads);

}  // namespace rvk
