#include "ops/iou.h"

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "parallel.h"
#include "stream.h"

namespace rvk {
namespace {

constexpr int64_t kBlock = 1024;

// One box against m boxes kept coordinate by coordinate, so that neighbours share a vector register.
void row(const float* a, const float* ymin, const float* xmin, const float* ymax, const float* xmax, const float* area,
         int64_t m, float* out) {
  dispatch([=]() RVK_INLINE {
    const float y0 = a[0];
    const float x0 = a[1];
    const float y1 = a[2];
    const float x1 = a[3];
    const float area_a = box_area(a);
    for (int64_t j = 0; j < m; ++j) {
      const float inter = box_overlap(y0, y1, ymin[j], ymax[j]) * box_overlap(x0, x1, xmin[j], xmax[j]);
      const float total = area_a + area[j] - inter;
      out[j] = inter / (total > 0.0f ? total : 1.0f);
    }
  });
}

}  // namespace

void iou(const float* a, int64_t n, const float* b, int64_t m, float* out, int threads) {
  std::vector<float> columns(static_cast<size_t>(m) * 5);
  float* ymin = columns.data();
  float* xmin = ymin + m;
  float* ymax = xmin + m;
  float* xmax = ymax + m;
  float* area = xmax + m;
  for (int64_t j = 0; j < m; ++j) {
    ymin[j] = b[4 * j];
    xmin[j] = b[4 * j + 1];
    ymax[j] = b[4 * j + 2];
    xmax[j] = b[4 * j + 3];
    area[j] = box_area(b + 4 * j);
  }
  const bool large = n * m * static_cast<int64_t>(sizeof(float)) >= kStreamBytes;
  parallel(
      n, threads,
      [=](int64_t begin, int64_t end) {
        // A block of b stays in L1 while the rows pass it.
        alignas(64) float buffer[kBlock];
        for (int64_t j = 0; j < m; j += kBlock) {
          const int64_t width = std::min(kBlock, m - j);
          for (int64_t i = begin; i < end; ++i) {
            float* place = out + i * m + j;
            row(a + 4 * i, ymin + j, xmin + j, ymax + j, xmax + j, area + j, width, large ? buffer : place);
            if (large) stream(place, buffer, width);
          }
        }
        if (large) stream_end();
      },
      1 + (1 << 18) / (m + 1));
}

}  // namespace rvk
