#include "ops/nms.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "dispatch.h"
#include "ops/iou.h"
#include "ops/rotated_iou.h"
#include "parallel.h"

namespace rvk {
namespace {

// Indices in order of falling score, ties by lowest index: a radix sort of the scores' bits, least digit first.
std::vector<uint32_t> by_falling_score(const float* scores, int64_t n) {
  constexpr int kBits = 11;
  constexpr int kDigits = 3;
  constexpr uint32_t kMask = (1u << kBits) - 1;
  std::vector<std::array<uint32_t, kDigits>> place(1u << kBits);  // counts, then where the next of a digit goes
  std::vector<uint64_t> from(static_cast<size_t>(n));
  std::vector<uint64_t> to(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    const float score = scores[i] + 0.0f;  // -0 becomes 0: they are equal
    uint32_t bits;
    std::memcpy(&bits, &score, sizeof bits);
    const uint32_t falling = bits >> 31 != 0 ? bits : ~(bits | 0x80000000u);
    for (int d = 0; d < kDigits; ++d) ++place[falling >> (kBits * d) & kMask][static_cast<size_t>(d)];
    from[i] = static_cast<uint64_t>(falling) << 32 | i;
  }
  for (size_t d = 0; d < kDigits; ++d) {
    uint32_t sum = 0;
    for (auto& p : place) sum += std::exchange(p[d], sum);
    for (const uint64_t item : from) to[place[item >> (32 + kBits * d) & kMask][d]++] = item;
    from.swap(to);
  }
  return {from.begin(), from.end()};  // the low 32 bits
}

struct Place {
  float ymin, xmin, ymax, xmax, area;
};

RVK_INLINE inline float overlap(const Place& a, const Place& b) {
  return box_overlap(a.ymin, a.ymax, b.ymin, b.ymax) * box_overlap(a.xmin, a.xmax, b.xmin, b.xmax);
}

// Boxes filed where another finds those that it may overlap in more than the threshold of their union.
//
// A box is filed by its level, which follows from its longest side, and by the cell of that level which holds its
// (ymin, xmin) corner. The cells of a level and row are neighbours in a table of buckets, from a place on that is a
// hash of class, level and row, so that a query reads a run of neighbours per row. Buckets may hold several cells:
// a box that is compared in vain costs time only, so the runs are also read in whole vectors.
class Grid {
 public:
  static constexpr int64_t kLanes = 16;

  // `order` gives the boxes' ranks, `area` their areas. A slot is the place of a box in the table.
  Grid(const float* boxes, const float* area, const int32_t* classes, const std::vector<uint32_t>& order,
       double threshold)
      : n_(order.size()), threshold_(threshold < 1e-6 ? 0 : threshold * (1 - 1e-5)) {
    size_t buckets = 64;
    while (buckets < n_) buckets *= 2;
    mask_ = buckets - 1;
    start_.assign(buckets + 1, 0);
    std::vector<uint32_t> bucket(n_);
    for (size_t r = 0; r < n_; ++r) {
      const float* box = boxes + 4 * size_t{order[r]};
      const int level = level_of(longest(box));
      levels_ |= uint64_t{1} << level;
      const double scale = 1 / cell_of(level);
      bucket[r] = static_cast<uint32_t>(
          (row_start(classes[order[r]], level, cell(box[0] * scale)) + static_cast<uint64_t>(cell(box[1] * scale))) &
          mask_);
      ++start_[bucket[r] + 1];
    }
    for (size_t b = 0; b < buckets; ++b) start_[b + 1] += start_[b];
    const size_t padded = n_ + kLanes;
    for (auto* column : {&ymin_, &xmin_, &ymax_, &xmax_, &area_}) column->assign(padded, 0.0f);
    rank_.assign(padded, ~uint32_t{0});
    class_.resize(n_);
    slot_.resize(n_);
    std::vector<uint32_t> next(start_.begin(), start_.end() - 1);
    for (size_t r = 0; r < n_; ++r) {
      const uint32_t s = slot_[r] = next[bucket[r]]++;
      const float* box = boxes + 4 * size_t{order[r]};
      ymin_[s] = box[0];
      xmin_[s] = box[1];
      ymax_[s] = box[2];
      xmax_[s] = box[3];
      area_[s] = area[order[r]];
      rank_[s] = static_cast<uint32_t>(r);
      class_[s] = classes[order[r]];
    }
  }

  uint32_t slot(size_t rank) const { return slot_[rank]; }
  uint32_t rank(size_t slot) const { return rank_[slot]; }

  // True if `found(slot)` is for one of the boxes of the same class and a lower rank that may suppress the box at
  // `slot`. `test(a, b)` leaves out those that cannot.
  template <typename Test, typename Found>
  RVK_INLINE bool any(uint32_t slot, Test test, Found found) const {
    const Place box{ymin_[slot], xmin_[slot], ymax_[slot], xmax_[slot], area_[slot]};
    const uint32_t rank = rank_[slot];
    const int32_t box_class = class_[slot];
    const auto run = [&](size_t first, size_t last) RVK_INLINE {
      for (size_t s = first; s < last; s += kLanes) {
        const auto meets = [&, s](size_t k) RVK_INLINE {
          const bool near = test(box, {ymin_[s + k], xmin_[s + k], ymax_[s + k], xmax_[s + k], area_[s + k]});
          return static_cast<uint32_t>(near) & static_cast<uint32_t>(rank_[s + k] < rank);
        };
        uint32_t some = 0;
        for (size_t k = 0; k < kLanes; ++k) some |= meets(k);
        if (some == 0) continue;
        for (size_t k = 0; k < kLanes; ++k)
          if (meets(k) && class_[s + k] == box_class && found(s + k)) return true;
      }
      return false;
    };

    // An IoU above the threshold t bounds the ratio of the heights and of the widths by t, and the distance of the
    // upper edges by (1 - t) times the height of the upper box; the same holds for the left edges. The margin in
    // threshold_ covers the rounding of IoU to float32, except for areas that are next to nothing.
    const double t = box.area < 1e-30f ? 0 : threshold_;
    const double height = static_cast<double>(box.ymax) - box.ymin;
    const double width = static_cast<double>(box.xmax) - box.xmin;
    const double side = std::max(height, width);
    int level = level_of(side * t);
    const int last_level = t > 0 ? level_of(side / t) : kLevels - 1;
    for (uint64_t rest = levels_ >> level; rest != 0 && level <= last_level; rest >>= 1, ++level) {
      if ((rest & 1) == 0) continue;
      const double cell_side = cell_of(level);
      const double scale = 1 / cell_side;
      const double reach = (1 - t) * (1 + 1e-5);
      const double above = reach * (t > 0 ? std::min(cell_side, height / t) : cell_side);
      const double left = reach * (t > 0 ? std::min(cell_side, width / t) : cell_side);
      const double y0 = std::floor((box.ymin - above) * scale);
      const double x0 = std::floor((box.xmin - left) * scale);
      const double y1 = std::floor((box.ymin + reach * height) * scale);
      const double x1 = std::floor((box.xmin + reach * width) * scale);
      // Where the cells are more work than all boxes, compare with all boxes, of every level.
      const double load = static_cast<double>(n_) / static_cast<double>(mask_ + 1);
      if ((y1 - y0 + 1) * (kLanes + (x1 - x0 + 1) * load) > static_cast<double>(n_)) return run(0, n_);
      const auto cells = static_cast<uint64_t>(x1 - x0 + 1);
      for (auto y = static_cast<int64_t>(y0); y <= static_cast<int64_t>(y1); ++y) {
        const uint64_t begin =
            (row_start(box_class, level, y) + static_cast<uint64_t>(static_cast<int64_t>(x0))) & mask_;
        const uint64_t end = begin + cells;
        if (run(start_[begin], start_[std::min(end, mask_ + 1)])) return true;
        if (end > mask_ + 1 && run(0, start_[end - mask_ - 1])) return true;
      }
    }
    return false;
  }

 private:
  // Sides reach 2^32, from -2^31 to 2^31; a cell is 8 times as wide as that of the level below.
  static constexpr int kLevels = 22;
  static constexpr int kFinest = -30;
  static constexpr int kStep = 3;

  static RVK_INLINE double cell_of(int level) {
    const uint64_t bits = static_cast<uint64_t>(1023 + kFinest + kStep * level) << 52;
    double side;
    std::memcpy(&side, &bits, sizeof side);
    return side;
  }

  // The lowest level whose cells are at least as wide as `side`.
  static RVK_INLINE int level_of(double side) {
    uint64_t bits;
    std::memcpy(&bits, &side, sizeof bits);
    const int exponent = static_cast<int>((bits + ((uint64_t{1} << 52) - 1)) >> 52) - 1023;  // rounded up
    return std::min(std::max(exponent - kFinest + kStep - 1, 0) / kStep, kLevels - 1);
  }

  static double longest(const float* box) {
    return std::max(static_cast<double>(box[2]) - box[0], static_cast<double>(box[3]) - box[1]);
  }

  static RVK_INLINE int64_t cell(double scaled) { return static_cast<int64_t>(std::floor(scaled)); }

  static RVK_INLINE uint64_t row_start(int32_t box_class, int level, int64_t y) {
    uint64_t h = static_cast<uint64_t>(y) * 0x9E3779B97F4A7C15u ^
                 static_cast<uint64_t>(static_cast<uint32_t>(box_class)) * 0xC2B2AE3D27D4EB4Fu;
    h += static_cast<uint64_t>(level) * 0x165667B19E3779F9u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
  }

  size_t n_;
  double threshold_;
  uint64_t mask_;
  uint64_t levels_ = 0;
  std::vector<uint32_t> start_;  // first slot of each bucket, and n
  std::vector<float> ymin_, xmin_, ymax_, xmax_, area_;
  std::vector<uint32_t> rank_, slot_;
  std::vector<int32_t> class_;
};

constexpr int64_t kForThreads = 8192;  // boxes; fewer are decided before it pays to start a thread

enum State : uint8_t { kUndecided, kKept, kDropped };

// Decides the boxes in order of rank. A box waits for the decision on those of lower rank that would suppress it, so
// the result is that of one thread. Pieces are handed out in order and each is worked off in order: the undecided box
// of lowest rank waits for nobody, so some thread always goes on.
template <typename Test, typename Suppresses>
std::vector<int64_t> greedy(const Grid& grid, const std::vector<uint32_t>& order, Test test, Suppresses suppresses,
                            int threads) {
  const auto n = static_cast<int64_t>(order.size());
  const auto state = std::make_unique<std::atomic<uint8_t>[]>(order.size());
  const auto* g = &grid;
  auto* decided = state.get();
  constexpr int64_t kPiece = 64;
  const int workers = n < kForThreads ? 1 : threads;
  parallel(
      n, workers,
      [=](int64_t begin, int64_t end) {
        dispatch([=]() RVK_INLINE {
          // Those that would suppress a box and are not decided yet: most boxes find another that is.
          std::array<size_t, 32> open;
          for (int64_t r = begin; r < end; ++r) {
            const uint32_t slot = g->slot(static_cast<size_t>(r));
            size_t waiting = 0;
            const auto wait = [&]() RVK_INLINE {
              for (; waiting > 0; --waiting) {
                uint8_t found = kUndecided;
                while ((found = decided[open[waiting - 1]].load(std::memory_order_acquire)) == kUndecided)
                  std::this_thread::yield();
                if (found == kKept) return true;
              }
              return false;
            };
            const bool dropped = g->any(slot, test, [&](size_t other) RVK_INLINE {
              const uint8_t found = decided[other].load(std::memory_order_acquire);
              if (found == kDropped || !suppresses(g->rank(other), static_cast<uint32_t>(r))) return false;
              if (found == kKept) return true;
              open[waiting++] = other;
              return waiting == open.size() && wait();
            });
            decided[slot].store(dropped || wait() ? kDropped : kKept, std::memory_order_release);
          }
        });
      },
      kPiece);
  std::vector<int64_t> kept;
  kept.reserve(order.size());
  for (size_t r = 0; r < order.size(); ++r)
    if (decided[grid.slot(r)].load(std::memory_order_relaxed) == kKept) kept.push_back(order[r]);
  return kept;
}

}  // namespace

std::vector<int64_t> nms(const float* boxes, const float* scores, const int32_t* classes, int64_t n, float threshold,
                         int threads) {
  const std::vector<uint32_t> order = by_falling_score(scores, n);
  std::vector<float> area(order.size());
  for (size_t i = 0; i < area.size(); ++i) area[i] = box_area(boxes + 4 * i);
  const Grid grid(boxes, area.data(), classes, order, threshold);
  // Without a division: rounding keeps order, so this holds wherever the rounded quotient is above the threshold. The
  // quotient decides.
  const auto test = [=](const Place& a, const Place& b) RVK_INLINE {
    const float inter = overlap(a, b);
    return static_cast<bool>(static_cast<int>(inter > 0) &
                             static_cast<int>(inter >= threshold * (a.area + b.area - inter)));
  };
  const uint32_t* by_rank = order.data();
  const auto suppresses = [=](uint32_t first, uint32_t second) RVK_INLINE {
    const float* a = boxes + 4 * size_t{by_rank[first]};
    const float* b = boxes + 4 * size_t{by_rank[second]};
    return box_iou(a, box_area(a), b, box_area(b)) > threshold;
  };
  return greedy(grid, order, test, suppresses, threads);
}

std::vector<int64_t> nms_rotated(const double* boxes, const float* scores, const int32_t* classes, int64_t n,
                                 double threshold, int threads) {
  std::vector<Turned> turned(static_cast<size_t>(n));
  std::vector<float> around(turned.size() * 4);
  std::vector<float> area(turned.size());
  for (size_t i = 0; i < turned.size(); ++i) {
    turned[i] = turn(boxes + 5 * i);
    bounds(turned[i], around.data() + 4 * i);
    area[i] = static_cast<float>(turned[i].area);
  }
  const std::vector<uint32_t> order = by_falling_score(scores, n);
  // Two boxes may overlap more than what is around them, so the grid knows no threshold. But they share no more than
  // what is around them, or than the smaller has; the margin covers float32.
  const Grid grid(around.data(), area.data(), classes, order, 0);
  const auto low = static_cast<float>(threshold * (1 - 1e-5));
  const auto test = [=](const Place& a, const Place& b) RVK_INLINE {
    const float smaller = a.area < b.area ? a.area : b.area;
    const float shared = overlap(a, b);
    const float most = shared < smaller ? shared : smaller;
    return static_cast<bool>(static_cast<int>(a.ymin < b.ymax) & static_cast<int>(b.ymin < a.ymax) &
                             static_cast<int>(a.xmin < b.xmax) & static_cast<int>(b.xmin < a.xmax) &
                             static_cast<int>(most >= low * (a.area + b.area - most)));
  };
  const uint32_t* by_rank = order.data();
  const Turned* all = turned.data();
  const auto suppresses = [=](uint32_t first, uint32_t second)
                              RVK_INLINE { return turned_iou(all[by_rank[first]], all[by_rank[second]]) > threshold; };
  return greedy(grid, order, test, suppresses, threads);
}

}  // namespace rvk
