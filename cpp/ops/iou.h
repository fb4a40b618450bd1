// Intersection over union of axis-aligned boxes (ymin, xmin, ymax, xmax), float32.
//
//   iou = inter / (area_a + area_b - inter); 0 when the union has no area.
// Each step is rounded to float32 in the order written, so that every kernel gives the same bits. Coordinates are
// finite, at most 2^31 in size, with ymin <= ymax and xmin <= xmax (the caller checks), so nothing overflows.
#pragma once

#include <cstdint>

namespace rvk {

inline float box_area(const float* box) { return (box[2] - box[0]) * (box[3] - box[1]); }

// std::min and std::max in the form compilers turn into one instruction.
inline float box_overlap(float amin, float amax, float bmin, float bmax) {
  const float low = amin > bmin ? amin : bmin;
  const float high = amax < bmax ? amax : bmax;
  const float length = high - low;
  return length > 0.0f ? length : 0.0f;
}

inline float box_iou(const float* a, float area_a, const float* b, float area_b) {
  const float inter = box_overlap(a[0], a[2], b[0], b[2]) * box_overlap(a[1], a[3], b[1], b[3]);
  const float total = area_a + area_b - inter;
  return inter / (total > 0.0f ? total : 1.0f);
}

// out[i * m + j] = iou(a[i], b[j]) for n boxes a and m boxes b.
void iou(const float* a, int64_t n, const float* b, int64_t m, float* out, int threads);

}  // namespace rvk
