#include "normalize.h"

#include <algorithm>

#include "../dispatch.h"
#include "../parallel.h"

namespace rvk {

namespace {

void widen_u8(const uint8_t* from, int64_t count, float* to) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
  });
}

void widen_u16(const uint16_t* from, int64_t count, float* to) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
  });
}

void write_interleaved(const float* values, int64_t count, const float* mean, const float* inverse, float* out) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) out[i] = (values[i] - mean[i]) * inverse[i];
  });
}

void write_planar(const float* values, int64_t cols, int64_t bands, const float* mean, const float* inverse, float* out,
                  int64_t plane) {
  dispatch([=]() RVK_INLINE {
    const auto write = [&](int64_t step) __attribute__((always_inline)) {
      for (int64_t b = 0; b < step; ++b) {
        float* row = out + b * plane;
        for (int64_t c = 0; c < cols; ++c) row[c] = (values[c * step + b] - mean[b]) * inverse[b];
      }
    };
    // A stride known when compiling lets the compiler load whole vectors and shuffle.
    if (bands == 3) {
      write(3);
    } else if (bands == 4) {
      write(4);
    } else {
      write(bands);
    }
  });
}

}  // namespace

std::vector<float> repeat_bands(const float* per_band, int64_t bands, int64_t cols) {
  std::vector<float> row(static_cast<size_t>(bands * cols));
  for (size_t i = 0; i < row.size(); ++i) row[i] = per_band[i % static_cast<size_t>(bands)];
  return row;
}

void widen(const Pixels& pixels, int64_t first, int64_t count, float* to) {
  switch (pixels.type) {
    case PixelType::u8:
      return widen_u8(static_cast<const uint8_t*>(pixels.data) + first, count, to);
    case PixelType::u16:
      return widen_u16(static_cast<const uint16_t*>(pixels.data) + first, count, to);
    case PixelType::f32:
      std::copy_n(static_cast<const float*>(pixels.data) + first, count, to);
  }
}

void normalize_row(const float* values, int64_t cols, int64_t bands, const float* mean, const float* inverse,
                   float* out, int64_t plane) {
  if (plane == 0 || bands == 1) {
    write_interleaved(values, cols * bands, mean, inverse, out);
  } else {
    write_planar(values, cols, bands, mean, inverse, out, plane);
  }
}

void normalize(const Pixels& images, int64_t n, int64_t pixels, int64_t bands, const float* mean, const float* inverse,
               bool planar, float* out, int threads) {
  // A chunk of pixels that stays in the first-level cache between its two loops.
  const int64_t chunk = std::max<int64_t>(1, std::min<int64_t>(pixels, 2048 / bands));
  const int64_t chunks = (pixels + chunk - 1) / chunk;
  const std::vector<float> mean_row = repeat_bands(mean, bands, chunk);
  const std::vector<float> inverse_row = repeat_bands(inverse, bands, chunk);
  parallel(
      n * chunks, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<float> row(static_cast<size_t>(chunk * bands));
        for (int64_t i = begin; i < end; ++i) {
          const int64_t image = i / chunks * pixels * bands;
          const int64_t at = i % chunks * chunk;
          const int64_t count = std::min(chunk, pixels - at);
          widen(images, image + at * bands, count * bands, row.data());
          normalize_row(row.data(), count, bands, mean_row.data(), inverse_row.data(),
                        out + image + (planar ? at : at * bands), planar ? pixels : 0);
        }
      },
      64);
}

}  // namespace rvk
