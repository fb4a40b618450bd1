// Intersection over union of rotated boxes (cy, cx, height, width, angle), float64.
//
// The angle is in degrees. It turns the box about its centre from the axis of columns towards the axis of rows, which
// is clockwise as an image is shown: the side `width` lies along (row, col) = (sin angle, cos angle), `height` along
// (cos angle, -sin angle). With angle 0 the box is (cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2).
// Values are finite, centres and sides at most 2^31 in size, sides not negative (the caller checks).
//
//   iou = inter / (area_a + area_b - inter); 0 when the union has no area.
//
// inter is taken in the frame of b, where b is |x| <= p, |y| <= q. Let a's boundary be a closed path; then
//   inter = | integral along the path, where |x| <= p, of min(max(y, -q), q) dx |
// since the path's upper and lower parts enclose just what lies between the two clamped curves. Each edge gives its
// part by itself, and continuously, so that equal, touching and contained boxes are no special cases: there are no
// vertices to classify. The error of iou is a few 1e-16 times the greatest ratio of a side of one box to a side of the
// other.
#pragma once

#include <cmath>
#include <cstdint>

#include "dispatch.h"

namespace rvk {

// A box ready for comparison: centre, direction of the width, half sides.
struct Turned {
  double y, x, cos, sin, half_height, half_width, area;
};

Turned turn(const double* box);

// A float32 box (ymin, xmin, ymax, xmax) around `box`, rounded outwards.
void bounds(const Turned& box, float* around);

namespace rotated_detail {

// std::min and std::max in the form compilers turn into one instruction.
RVK_INLINE inline double least(double a, double b) { return a < b ? a : b; }
RVK_INLINE inline double most(double a, double b) { return a > b ? a : b; }
RVK_INLINE inline double clamp(double v, double low, double high) { return least(most(v, low), high); }

// 1 / v, to the last bit but one. Nearer to 0 than any side is, it may be anything finite: what is multiplied with it
// then spans no length. In this form since a condition would keep compilers from using vectors.
RVK_INLINE inline double inverse(double v) { return v / most(v * v, 1e-290); }

// The integral of min(max(y, -q), q) dx over the part with |x| <= p of the line from (x, y) to (x + dx, y + dy).
RVK_INLINE inline double edge(double x, double y, double dx, double dy, double per_dx, double per_dy, double p,
                              double q) {
  const double left = (-p - x) * per_dx;
  const double right = (p - x) * per_dx;
  const double t0 = clamp(least(left, right), 0.0, 1.0);
  const double t1 = clamp(most(left, right), t0, 1.0);
  const double low = (-q - y) * per_dy;
  const double high = (q - y) * per_dy;
  const double s0 = clamp(least(low, high), t0, t1);  // between s0 and s1 the line runs inside |y| <= q
  const double s1 = clamp(most(low, high), t0, t1);
  const double y_t0 = clamp(y + t0 * dy, -q, q);
  const double y_s0 = clamp(y + s0 * dy, -q, q);
  const double y_s1 = clamp(y + s1 * dy, -q, q);
  const double y_t1 = clamp(y + t1 * dy, -q, q);
  return 0.5 * dx * ((s0 - t0) * (y_t0 + y_s0) + (s1 - s0) * (y_s0 + y_s1) + (t1 - s1) * (y_s1 + y_t1));
}

}  // namespace rotated_detail

RVK_INLINE inline double turned_iou(const Turned& a, const Turned& b) {
  using namespace rotated_detail;
  const double cos = a.cos * b.cos + a.sin * b.sin;
  const double sin = a.sin * b.cos - a.cos * b.sin;
  const double away_x = a.x - b.x;
  const double away_y = a.y - b.y;
  const double x = away_x * b.cos + away_y * b.sin;
  const double y = away_y * b.cos - away_x * b.sin;
  const double wide_x = a.half_width * cos;
  const double wide_y = a.half_width * sin;
  const double high_x = -a.half_height * sin;
  const double high_y = a.half_height * cos;
  const double per_wide_x = 0.5 * inverse(wide_x);
  const double per_wide_y = 0.5 * inverse(wide_y);
  const double per_high_x = 0.5 * inverse(high_x);
  const double per_high_y = 0.5 * inverse(high_y);
  const double p = b.half_width;
  const double q = b.half_height;
  // Opposite edges are taken in the same direction, and their difference.
  const double top =
      edge(x - wide_x - high_x, y - wide_y - high_y, 2 * wide_x, 2 * wide_y, per_wide_x, per_wide_y, p, q);
  const double foot =
      edge(x - wide_x + high_x, y - wide_y + high_y, 2 * wide_x, 2 * wide_y, per_wide_x, per_wide_y, p, q);
  const double left =
      edge(x - wide_x - high_x, y - wide_y - high_y, 2 * high_x, 2 * high_y, per_high_x, per_high_y, p, q);
  const double right =
      edge(x + wide_x - high_x, y + wide_y - high_y, 2 * high_x, 2 * high_y, per_high_x, per_high_y, p, q);
  // Boxes with a line between them have 0, not what rounding leaves of the sum. The line may run along any side.
  const double along = x * cos + y * sin;  // the way from b to a in the frame of a
  const double across = y * cos - x * sin;
  const double gap = most(most(std::fabs(x) - (p + std::fabs(wide_x) + std::fabs(high_x)),
                               std::fabs(y) - (q + std::fabs(wide_y) + std::fabs(high_y))),
                          most(std::fabs(along) - (a.half_width + p * std::fabs(cos) + q * std::fabs(sin)),
                               std::fabs(across) - (a.half_height + p * std::fabs(sin) + q * std::fabs(cos))));
  const double sum = least(std::fabs((top - foot) + (right - left)), least(a.area, b.area));
  const double inter = gap >= 0.0 ? 0.0 : sum;
  const double total = a.area + b.area - inter;
  return inter / (total > 0.0 ? total : 1.0);
}

// out[i * m + j] = iou(a[i], b[j]) for n boxes a and m boxes b of 5 numbers.
void rotated_iou(const double* a, int64_t n, const double* b, int64_t m, double* out, int threads);

}  // namespace rvk
