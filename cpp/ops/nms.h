// Greedy non-maximum suppression, class by class.
//
// Boxes are taken in order of falling score, ties by lowest index; a box is kept unless a kept box of its class has an
// IoU (iou.h in float32, or rotated_iou.h) with it that is greater than `threshold`. The result is that of comparing
// with every kept box; the grid only leaves out pairs that cannot reach the threshold.
#pragma once

#include <cstdint>
#include <vector>

namespace rvk {

// boxes (n, 4) as iou.h requires, scores without NaN, 0 <= threshold <= 1, n < 2^32 - 1. Returns kept indices, score
// falling.
std::vector<int64_t> nms(const float* boxes, const float* scores, const int32_t* classes, int64_t n, float threshold,
                         int threads);

// The same for boxes (n, 5) as rotated_iou.h requires.
std::vector<int64_t> nms_rotated(const double* boxes, const float* scores, const int32_t* classes, int64_t n,
                                 double threshold, int threads);

}  // namespace rvk
