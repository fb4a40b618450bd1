#include "ops/nms.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "ops/iou.h"
#include "parallel.h"

namespace rvk {
namespace {

// Kept boxes of one class. A box is filed by its size, as the level L with longest side <= 2^L, and by the cell of side
// 2^L that holds its (ymin, xmin) corner. A box that overlaps another therefore has its corner in one of few cells of
// each level. Buckets of the table may hold several cells: every candidate is compared, so that costs time only.
class KeptBoxes {
 public:
  KeptBoxes(const float* boxes, int64_t most, float threshold) : boxes_(boxes), threshold_(threshold) {
    size_t buckets = 16;
    while (buckets < static_cast<size_t>(most) * 2) buckets *= 2;
    bucket_.assign(buckets, -1);
    level_.fill(-1);
    count_.fill(0);
  }

  bool suppress(const float* box) const {
    const float area = box_area(box);
    // Overlapping in more than `threshold` of the union bounds the ratio of the longest sides: IoU is at most the ratio
    // of the heights and of the widths. The margin covers the rounding of IoU to float32.
    const double side = longest(box);
    const double ratio = static_cast<double>(threshold_) * (1 - 1e-5);
    for (int level = 0; level < kLevels; ++level) {
      if (count_[level] == 0) continue;
      const double cell = std::ldexp(1.0, level);
      const double smallest = level == 0 ? 0.0 : cell / 2;
      if (cell < side * ratio || smallest * ratio > side) continue;
      const auto y0 = static_cast<int64_t>(std::floor(box[0] / cell)) - 1;
      const auto x0 = static_cast<int64_t>(std::floor(box[1] / cell)) - 1;
      const auto y1 = static_cast<int64_t>(std::floor(box[2] / cell));
      const auto x1 = static_cast<int64_t>(std::floor(box[3] / cell));
      if ((y1 - y0 + 1) > count_[level] / (x1 - x0 + 1)) {
        if (any(level_[level], next_in_level_, box, area)) return true;
        continue;
      }
      for (int64_t y = y0; y <= y1; ++y)
        for (int64_t x = x0; x <= x1; ++x)
          if (any(bucket_[bucket(level, y, x)], next_in_bucket_, box, area)) return true;
    }
    return false;
  }

  void keep(int64_t index) {
    const float* box = boxes_ + 4 * index;
    const int level = level_of(longest(box));
    const double cell = std::ldexp(1.0, level);
    int64_t& head = bucket_[bucket(level, static_cast<int64_t>(std::floor(box[0] / cell)),
                                   static_cast<int64_t>(std::floor(box[1] / cell)))];
    const auto slot = static_cast<int64_t>(index_.size());
    index_.push_back(index);
    next_in_bucket_.push_back(head);
    next_in_level_.push_back(level_[level]);
    head = slot;
    level_[level] = slot;
    ++count_[level];
  }

 private:
  static constexpr int kLevels = 34;  // sides reach 2^32: from -2^31 to 2^31

  static double longest(const float* box) {
    return std::max(static_cast<double>(box[2]) - box[0], static_cast<double>(box[3]) - box[1]);
  }

  static int level_of(double side) {
    int level = 0;
    while (std::ldexp(1.0, level) < side) ++level;
    return level;
  }

  size_t bucket(int level, int64_t y, int64_t x) const {
    uint64_t h = static_cast<uint64_t>(y) * 0x9E3779B97F4A7C15u ^ static_cast<uint64_t>(x) * 0xC2B2AE3D27D4EB4Fu;
    h += static_cast<uint64_t>(level) * 0x165667B19E3779F9u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    return static_cast<size_t>(h) & (bucket_.size() - 1);
  }

  bool any(int64_t slot, const std::vector<int64_t>& next, const float* box, float area) const {
    for (; slot >= 0; slot = next[static_cast<size_t>(slot)]) {
      const float* kept = boxes_ + 4 * index_[static_cast<size_t>(slot)];
      if (box_iou(kept, box_area(kept), box, area) > threshold_) return true;
    }
    return false;
  }

  const float* boxes_;
  float threshold_;
  std::vector<int64_t> bucket_;  // first slot of each bucket, -1 when empty
  std::array<int64_t, kLevels> level_;
  std::array<int64_t, kLevels> count_;
  std::vector<int64_t> index_, next_in_bucket_, next_in_level_;  // by slot
};

}  // namespace

std::vector<int64_t> nms(const float* boxes, const float* scores, const int32_t* classes, int64_t n, float threshold,
                         int threads) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return scores[i] > scores[j]; });

  // Classes do not meet, so each is a piece of work of its own; within a class the order of scores stays.
  std::vector<int64_t> grouped = order;
  std::stable_sort(grouped.begin(), grouped.end(), [&](int64_t i, int64_t j) { return classes[i] < classes[j]; });
  std::vector<int64_t> start;
  for (int64_t k = 0; k < n; ++k)
    if (k == 0 || classes[grouped[static_cast<size_t>(k)]] != classes[grouped[static_cast<size_t>(k - 1)]])
      start.push_back(k);
  const auto groups = static_cast<int64_t>(start.size());
  start.push_back(n);

  std::vector<uint8_t> keep(static_cast<size_t>(n), 0);
  parallel(groups, threads, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = start[static_cast<size_t>(g)];
      const int64_t last = start[static_cast<size_t>(g + 1)];
      KeptBoxes kept(boxes, last - first, threshold);
      for (int64_t k = first; k < last; ++k) {
        const int64_t i = grouped[static_cast<size_t>(k)];
        if (kept.suppress(boxes + 4 * i)) continue;
        kept.keep(i);
        keep[static_cast<size_t>(i)] = 1;
      }
    }
  });
  order.erase(std::remove_if(order.begin(), order.end(), [&](int64_t i) { return keep[static_cast<size_t>(i)] == 0; }),
              order.end());
  return order;
}

}  // namespace rvk
