#include "ops/iou.h"

#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace rvk {
namespace {

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
  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) row(a + 4 * i, ymin, xmin, ymax, xmax, area, m, out + i * m);
      },
      1 + (1 << 16) / (m + 1));
}

}  // namespace rvk
