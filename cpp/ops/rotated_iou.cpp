#include "ops/rotated_iou.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace rvk {
namespace {

constexpr double kLeastSide = 1e-140;  // squares of what is less are no float64, see inverse()

// cos and sin of an angle in degrees, without error at multiples of 90.
std::array<double, 2> direction(double degrees) {
  const double turned = std::fmod(degrees, 360.0);
  const double quarters = std::nearbyint(turned / 90);
  const double rest = (turned - 90 * quarters) * (3.14159265358979323846 / 180);
  const double c = std::cos(rest);
  const double s = std::sin(rest);
  switch (static_cast<int>(quarters) & 3) {
    case 0:
      return {c, s};
    case 1:
      return {-s, c};
    case 2:
      return {-c, -s};
    default:
      return {s, -c};
  }
}

// near[j] = 1 where the bounds of b[j] meet those of a.
void meet(const float* a, const float* ymin, const float* xmin, const float* ymax, const float* xmax, int64_t m,
          uint8_t* near) {
  dispatch([=]() RVK_INLINE {
    const float y0 = a[0];
    const float x0 = a[1];
    const float y1 = a[2];
    const float x1 = a[3];
    for (int64_t j = 0; j < m; ++j)
      near[j] = static_cast<uint8_t>(static_cast<int>(ymin[j] < y1) & static_cast<int>(y0 < ymax[j]) &
                                     static_cast<int>(xmin[j] < x1) & static_cast<int>(x0 < xmax[j]));
  });
}

// Boxes b of one row whose bounds meet those of a, by columns so that neighbours share a vector register.
struct Near {
  static constexpr int64_t kMost = 256;
  double y[kMost], x[kMost], cos[kMost], sin[kMost], half_height[kMost], half_width[kMost], area[kMost];
  double iou[kMost];
  int64_t place[kMost];
  int64_t count = 0;

  void add(const Turned& box, int64_t j) {
    y[count] = box.y;
    x[count] = box.x;
    cos[count] = box.cos;
    sin[count] = box.sin;
    half_height[count] = box.half_height;
    half_width[count] = box.half_width;
    area[count] = box.area;
    place[count] = j;
    ++count;
  }

  void write(const Turned& box, double* row) {
    Near* n = this;
    dispatch([=]() RVK_INLINE {
      const Turned a = box;
      for (int64_t k = 0; k < n->count; ++k)
        n->iou[k] =
            turned_iou(a, {n->y[k], n->x[k], n->cos[k], n->sin[k], n->half_height[k], n->half_width[k], n->area[k]});
    });
    for (int64_t k = 0; k < count; ++k) row[place[k]] = iou[k];
    count = 0;
  }
};

}  // namespace

Turned turn(const double* box) {
  const auto [c, s] = direction(box[4]);
  const double height = box[2] < kLeastSide ? 0 : box[2];
  const double width = box[3] < kLeastSide ? 0 : box[3];
  return {box[0], box[1], c, s, height / 2, width / 2, height * width};
}

void bounds(const Turned& box, float* around) {
  const double reach[2] = {box.half_width * std::fabs(box.sin) + box.half_height * std::fabs(box.cos),
                           box.half_width * std::fabs(box.cos) + box.half_height * std::fabs(box.sin)};
  const double centre[2] = {box.y, box.x};
  for (int axis = 0; axis < 2; ++axis) {
    const double margin = (std::fabs(centre[axis]) + reach[axis]) * 2e-7 + 1e-37;  // more than float32 rounds off
    around[axis] = static_cast<float>(centre[axis] - reach[axis] - margin);
    around[axis + 2] = static_cast<float>(centre[axis] + reach[axis] + margin);
  }
}

void rotated_iou(const double* a, int64_t n, const double* b, int64_t m, double* out, int threads) {
  constexpr int64_t kWord = 8;  // boxes whose flags are looked at together
  std::vector<Turned> turned(static_cast<size_t>(m));
  std::vector<float> columns(static_cast<size_t>(m) * 4);
  float* ymin = columns.data();
  float* xmin = ymin + m;
  float* ymax = xmin + m;
  float* xmax = ymax + m;
  for (int64_t j = 0; j < m; ++j) {
    const Turned box = turn(b + 5 * j);
    float around[4];
    bounds(box, around);
    turned[static_cast<size_t>(j)] = box;
    ymin[j] = around[0];
    xmin[j] = around[1];
    ymax[j] = around[2];
    xmax[j] = around[3];
  }
  const Turned* boxes = turned.data();
  parallel(
      n, threads,
      [=](int64_t begin, int64_t end) {
        std::vector<uint8_t> flags(static_cast<size_t>(m + kWord), 0);  // as far as the last word reaches
        Near near;
        for (int64_t i = begin; i < end; ++i) {
          const Turned box = turn(a + 5 * i);
          float around[4];
          bounds(box, around);
          meet(around, ymin, xmin, ymax, xmax, m, flags.data());
          double* row = out + i * m;
          std::fill(row, row + m, 0.0);
          for (int64_t j = 0; j < m; j += kWord) {
            const uint8_t* word = flags.data() + j;
            uint64_t some;
            std::memcpy(&some, word, sizeof some);
            if (some == 0) continue;
            for (int64_t k = 0; k < kWord; ++k)
              if (word[k] != 0) near.add(boxes[j + k], j + k);
            if (near.count > Near::kMost - kWord) near.write(box, row);
          }
          near.write(box, row);
        }
      },
      1 + (1 << 15) / (m + 1));
}

}  // namespace rvk
