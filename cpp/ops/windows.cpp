#include "ops/windows.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>

#include "parallel.h"

namespace rvk {

namespace {

// Adds x to the expansion e (non-overlapping, ascending magnitudes) of `length` values; the sum stays exact.
void grow(double* e, int& length, double x) {
  int kept = 0;
  for (int i = 0; i < length; ++i) {
    const double sum = x + e[i], part = sum - x;
    const double error = (x - (sum - part)) + (e[i] - part);
    if (error != 0) e[kept++] = error;
    x = sum;
  }
  if (x != 0) e[kept++] = x;
  length = kept;
}

int sign(double x) { return (x > 0) - (x < 0); }

// The sign of (a - c) x (b - c): positive when a, b, c turn left with y up.
int orientation(double ax, double ay, double bx, double by, double cx, double cy) {
  const double left = (ax - cx) * (by - cy), right = (ay - cy) * (bx - cx);
  const double determinant = left - right;
  constexpr double kBound = (3 + 16 * 0x1p-53) * 0x1p-53;
  if (std::abs(determinant) > kBound * (std::abs(left) + std::abs(right))) return sign(determinant);
  double sum[12];
  int length = 0;
  const double products[6][2] = {{ax, by}, {-ax, cy}, {-cx, by}, {-ay, bx}, {ay, cx}, {cy, bx}};
  for (const auto& [u, v] : products) {
    const double product = u * v;
    grow(sum, length, std::fma(u, v, -product));
    grow(sum, length, product);
  }
  return length ? sign(sum[length - 1]) : 0;
}

constexpr int64_t kMostCells = int64_t{1} << 20;
constexpr double kSlack = 1e-3;  // of a cell, by which segments reach into more cells: more than rounding moves them

}  // namespace

// The closed segment and the open rectangle, both convex, are apart when they are so along x, y or the normal.
bool Area::meets(const Segment& s, const Box& box) {
  if (std::max(s.ax, s.bx) <= box.x0 || std::min(s.ax, s.bx) >= box.x1) return false;
  if (std::max(s.ay, s.by) <= box.y0 || std::min(s.ay, s.by) >= box.y1) return false;
  bool left = false, right = false;
  for (const double x : {box.x0, box.x1})
    for (const double y : {box.y0, box.y1}) {
      const int side = orientation(s.ax, s.ay, s.bx, s.by, x, y);
      left = left || side > 0;
      right = right || side < 0;
    }
  return left && right;
}

int64_t Area::column(double x) const {
  return std::clamp<int64_t>(static_cast<int64_t>(std::floor((x - bounds_.x0) / cell_)), 0, cols_ - 1);
}

int64_t Area::row(double y) const {
  return std::clamp<int64_t>(static_cast<int64_t>(std::floor((y - bounds_.y0) / cell_)), 0, rows_ - 1);
}

Area::Area(const double* coords, const int64_t* ring_start, int64_t rings) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  bounds_ = {kFar, kFar, -kFar, -kFar};
  for (int64_t r = 0; r < rings; ++r)
    for (int64_t i = ring_start[r]; i + 1 < ring_start[r + 1]; ++i) {
      const double* p = coords + 2 * i;
      if (p[0] == p[2] && p[1] == p[3]) continue;
      segments_.push_back({p[0], p[1], p[2], p[3]});
      bounds_ = {std::min({bounds_.x0, p[0], p[2]}), std::min({bounds_.y0, p[1], p[3]}),
                 std::max({bounds_.x1, p[0], p[2]}), std::max({bounds_.y1, p[1], p[3]})};
    }
  if (segments_.empty()) return;

  // Square cells, about four per segment, so that most of them are empty.
  const double width = std::max(bounds_.x1 - bounds_.x0, 1e-9), height = std::max(bounds_.y1 - bounds_.y0, 1e-9);
  const auto cells =
      static_cast<double>(std::clamp<int64_t>(4 * static_cast<int64_t>(segments_.size()), 256, kMostCells));
  cell_ = std::max({std::sqrt(width * height / cells), width / 4096, height / 4096});
  cols_ = static_cast<int64_t>(width / cell_) + 1;
  rows_ = static_cast<int64_t>(height / cell_) + 1;

  const double slack = kSlack * cell_;
  // f(row, first column, last column) for each row of cells that a segment reaches.
  auto each_row = [&](const Segment& s, auto&& f) {
    const double top = std::min(s.ay, s.by), bottom = std::max(s.ay, s.by);
    const int64_t last = row(bottom + slack);
    for (int64_t r = row(top - slack); r <= last; ++r) {
      // Its columns between the lines above and below this row of cells.
      const double y0 = bounds_.y0 + static_cast<double>(r) * cell_ - slack, y1 = y0 + cell_ + 2 * slack;
      double x0 = std::min(s.ax, s.bx), x1 = std::max(s.ax, s.bx);
      if (s.ay != s.by && (top < y0 || bottom > y1)) {
        const double slope = (s.bx - s.ax) / (s.by - s.ay);
        const double u = s.ax + (std::clamp(y0, top, bottom) - s.ay) * slope;
        const double v = s.ax + (std::clamp(y1, top, bottom) - s.ay) * slope;
        x0 = std::max(x0, std::min(u, v));
        x1 = std::min(x1, std::max(u, v));
      }
      f(r, column(x0 - slack), column(x1 + slack));
    }
  };
  cell_start_.assign(static_cast<size_t>(rows_ * cols_ + 1), 0);
  row_start_.assign(static_cast<size_t>(rows_ + 1), 0);
  for (const Segment& s : segments_)
    each_row(s, [&](int64_t r, int64_t c0, int64_t c1) {
      ++row_start_[r + 1];
      for (int64_t c = c0; c <= c1; ++c) ++cell_start_[r * cols_ + c + 1];
    });
  for (size_t i = 1; i < cell_start_.size(); ++i) cell_start_[i] += cell_start_[i - 1];
  for (size_t i = 1; i < row_start_.size(); ++i) row_start_[i] += row_start_[i - 1];
  in_cell_.resize(static_cast<size_t>(cell_start_.back()));
  in_row_.resize(static_cast<size_t>(row_start_.back()));
  std::vector<int64_t> cell_next(cell_start_.begin(), cell_start_.end() - 1);
  std::vector<int64_t> row_next(row_start_.begin(), row_start_.end() - 1);
  for (size_t i = 0; i < segments_.size(); ++i)
    each_row(segments_[i], [&](int64_t r, int64_t c0, int64_t c1) {
      in_row_[row_next[r]++] = static_cast<int32_t>(i);
      for (int64_t c = c0; c <= c1; ++c) in_cell_[cell_next[r * cols_ + c]++] = static_cast<int32_t>(i);
    });

  filled_.assign(static_cast<size_t>((rows_ + 1) * (cols_ + 1)), 0);
  inside_.assign(static_cast<size_t>(rows_ * cols_), 0);
  for (int64_t r = 0; r < rows_; ++r) {
    int64_t in_this_row = 0;
    bool known = false;
    for (int64_t c = 0; c < cols_; ++c) {
      const int64_t cell = r * cols_ + c;
      const bool empty = cell_start_[cell] == cell_start_[cell + 1];
      in_this_row += !empty;
      filled_[(r + 1) * (cols_ + 1) + c + 1] = filled_[r * (cols_ + 1) + c + 1] + in_this_row;
      if (empty)  // the same as its neighbour: nothing lies between them
        inside_[cell] = known ? inside_[cell - 1]
                              : inside(bounds_.x0 + (static_cast<double>(c) + 0.5) * cell_,
                                       bounds_.y0 + (static_cast<double>(r) + 0.5) * cell_);
      known = empty;
    }
  }
}

// Even-odd rule for a point on no segment: segments that cross the ray to its right.
bool Area::inside(double x, double y) const {
  if (!(x > bounds_.x0 && x < bounds_.x1 && y > bounds_.y0 && y < bounds_.y1)) return false;
  bool odd = false;
  const int64_t r = row(y);
  for (int64_t k = row_start_[r]; k < row_start_[r + 1]; ++k) {
    const Segment& s = segments_[in_row_[k]];
    if ((s.ay > y) == (s.by > y) || std::max(s.ax, s.bx) < x) continue;
    const int side = orientation(s.ax, s.ay, s.bx, s.by, x, y);
    odd ^= s.by > s.ay ? side > 0 : side < 0;
  }
  return odd;
}

Place Area::place(const int64_t* w) const {
  const Box box{static_cast<double>(w[1]), static_cast<double>(w[0]), static_cast<double>(w[1] + w[3]),
                static_cast<double>(w[0] + w[2])};
  if (segments_.empty() || box.x1 <= bounds_.x0 || box.x0 >= bounds_.x1 || box.y1 <= bounds_.y0 || box.y0 >= bounds_.y1)
    return Place::outside;
  const int64_t c0 = column(box.x0), c1 = column(box.x1), r0 = row(box.y0), r1 = row(box.y1);
  const auto sum = [&](int64_t r, int64_t c) { return filled_[r * (cols_ + 1) + c]; };
  if (sum(r1 + 1, c1 + 1) - sum(r0, c1 + 1) - sum(r1 + 1, c0) + sum(r0, c0) == 0)
    return inside_[r0 * cols_ + c0] ? Place::within : Place::outside;
  for (int64_t r = r0; r <= r1; ++r)
    for (int64_t k = cell_start_[r * cols_ + c0]; k < cell_start_[r * cols_ + c1 + 1]; ++k)
      if (meets(segments_[in_cell_[k]], box)) return Place::partly;
  return inside((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) ? Place::within : Place::outside;
}

void Area::place(const int64_t* windows, int64_t n, uint8_t* out, int threads) const {
  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = static_cast<uint8_t>(place(windows + 4 * i));
      },
      4096);
}

void count_in_windows(const uint8_t* mask, int64_t rows, int64_t cols, const uint8_t* wanted, const int64_t* windows,
                      int64_t n, int64_t* counts, int threads) {
  std::fill_n(counts, n, int64_t{0});
  // Windows by the row of the mask they begin in.
  std::vector<int64_t> order;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t* w = windows + 4 * i;
    if (w[0] < rows && w[0] + w[2] > 0 && w[1] < cols && w[1] + w[3] > 0) order.push_back(i);
  }
  const auto first_row = [&](int64_t i) { return std::max<int64_t>(0, windows[4 * i]); };
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return first_row(a) != first_row(b) ? first_row(a) < first_row(b) : a < b; });

  // Bands of rows, each summed into counts of its own, so that the bands need no lock.
  const int64_t bands = std::min<int64_t>(thread_count(threads), std::max<int64_t>(1, rows / 64));
  const int64_t height = (rows + bands - 1) / bands;
  std::vector<std::vector<int64_t>> partial(static_cast<size_t>(bands));
  parallel(bands, threads, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> sums(static_cast<size_t>(cols) + 1), open;
    for (int64_t band = begin; band < end; ++band) {
      std::vector<int64_t>& mine = partial[band];
      mine.assign(static_cast<size_t>(n), 0);
      open.clear();
      size_t next = 0;
      for (int64_t r = band * height; r < std::min(rows, (band + 1) * height); ++r) {
        for (; next < order.size() && first_row(order[next]) <= r; ++next) open.push_back(order[next]);
        open.erase(std::remove_if(open.begin(), open.end(),
                                  [&](int64_t i) { return windows[4 * i] + windows[4 * i + 2] <= r; }),
                   open.end());
        if (open.empty()) continue;
        const uint8_t* pixels = mask + r * cols;
        int64_t sum = 0;
        for (int64_t c = 0; c < cols; ++c) {
          sums[c] = sum;
          sum += wanted[pixels[c]];
        }
        sums[cols] = sum;
        for (const int64_t i : open) {
          const int64_t* w = windows + 4 * i;
          mine[i] += sums[std::min(cols, w[1] + w[3])] - sums[std::max<int64_t>(0, w[1])];
        }
      }
    }
  });
  for (const auto& mine : partial)
    for (int64_t i = 0; i < n && !mine.empty(); ++i) counts[i] += mine[i];
}

}  // namespace rvk
