#include "ops/rasterize.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "parallel.h"

namespace rvk {
namespace {

constexpr double kNear = 0.01;         // a segment this close to one column or row, or to a pixel edge, counts as on it
constexpr double kSmallStep = 1e-9;    // a step across a row is at least this, so that rounding cannot stop the walk
constexpr int64_t kStrip = 256;        // rows per piece of work
constexpr int64_t kMostCells = 64;     // a part over more cells than this is kept out of the grid
constexpr int64_t kSmallestCell = 16;  // pixels

int64_t whole(double v) { return static_cast<int64_t>(std::floor(v)); }

bool on_pixel_edge(double v) { return std::abs(v - std::round(v)) < kNear; }

// The first scanline whose centre is at or below y.
int64_t first_scanline(double y) { return static_cast<int64_t>(std::ceil(y - 0.5)); }

}  // namespace

// A window's pixels; positions are the scene's.
struct Rasterizer::Canvas {
  uint8_t* out;
  int64_t top, left, bottom, right;  // of the window, within the scene
  int64_t stride, row, col;          // of `out`
  uint8_t value;

  void span(int64_t y, int64_t begin, int64_t end) const {
    begin = std::max(begin, left);
    end = std::min(end, right);
    if (y < top || y >= bottom || begin >= end) return;
    std::memset(out + (y - row) * stride + (begin - col), value, static_cast<size_t>(end - begin));
  }

  void pixel(int64_t y, int64_t x) const {
    if (y >= top && y < bottom && x >= left && x < right) out[(y - row) * stride + (x - col)] = value;
  }
};

namespace {

template <typename P>
double twice_area(const P* p, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const P& before = p[i == 0 ? n - 1 : i - 1];
    const P& after = p[i == n - 1 ? 0 : i + 1];
    sum += p[i].x * (after.y - before.y);
  }
  return sum;
}

// Whether a closed ring (last point = first) runs clockwise on the raster, where y points down: the turn at its lowest,
// then rightmost vertex. The sign of the area decides when that vertex is met twice or has a neighbour on top of it.
template <typename P>
bool runs_clockwise(const P* p, int64_t n) {
  constexpr double kSame = 1e-5;
  const int64_t distinct = n - 1;
  if (distinct < 2) return true;
  int64_t pivot = 0;
  bool doubtful = false;
  for (int64_t i = 1; i < distinct; ++i) {
    if (p[i].y > p[pivot].y || (p[i].y == p[pivot].y && p[i].x > p[pivot].x)) {
      pivot = i;
      doubtful = false;
    } else if (p[i].y == p[pivot].y && p[i].x == p[pivot].x) {
      doubtful = true;
    }
  }
  const P& at = p[pivot];
  const P& before = p[pivot == 0 ? distinct - 1 : pivot - 1];
  const P& after = p[pivot + 1 == distinct ? 0 : pivot + 1];
  for (const P* other : {&before, &after})
    doubtful |= std::abs(other->x - at.x) < kSame && std::abs(other->y - at.y) < kSame;
  const double cross = (after.x - at.x) * (before.y - at.y) - (before.x - at.x) * (after.y - at.y);
  if (!doubtful && cross != 0) return cross > 0;
  return twice_area(p, n) > 0;
}

}  // namespace

Rasterizer::Rasterizer(const GeometryArrays& g, const uint8_t* class_ids, int64_t scene_rows, int64_t scene_cols,
                       bool all_touched)
    : ring_start_(g.ring_start, g.ring_start + g.rings + 1),
      part_start_(g.part_start, g.part_start + g.parts + 1),
      value_(static_cast<size_t>(g.parts)),
      scene_rows_(scene_rows),
      scene_cols_(scene_cols),
      all_touched_(all_touched) {
  coords_.resize(static_cast<size_t>(ring_start_.back()));
  for (size_t i = 0; i < coords_.size(); ++i) coords_[i] = {g.coords[2 * i], g.coords[2 * i + 1]};
  for (int64_t p = 0; p < g.parts; ++p) kinds_.push_back(static_cast<Kind>(g.kinds[p]));
  for (int64_t f = 0; f < g.features; ++f)
    for (int64_t p = g.feature_start[f]; p < g.feature_start[f + 1]; ++p) value_[static_cast<size_t>(p)] = class_ids[f];
  for (int64_t r = 0; r < g.rings; ++r) {
    const int64_t first = g.ring_start[r];
    clockwise_.push_back(runs_clockwise(coords_.data() + first, g.ring_start[r + 1] - first));
  }
  for (int64_t p = 0; p < g.parts; ++p) {
    const int64_t begin = g.ring_start[g.part_start[p]];
    const int64_t end = g.ring_start[g.part_start[p + 1]];
    double left = std::numeric_limits<double>::infinity();
    double top = left;
    double right = -left;
    double bottom = -left;
    for (int64_t i = begin; i < end; ++i) {
      const Point& point = coords_[static_cast<size_t>(i)];
      left = std::min(left, point.x);
      right = std::max(right, point.x);
      top = std::min(top, point.y);
      bottom = std::max(bottom, point.y);
    }
    // One pixel more on each side than the geometry covers: rounding may burn a neighbour. Cut to the scene.
    Box box{0, 0, 0, 0};
    if (begin < end)
      box = {std::clamp(whole(top) - 1, int64_t{0}, scene_rows_), std::clamp(whole(left) - 1, int64_t{0}, scene_cols_),
             std::clamp(whole(bottom) + 2, int64_t{0}, scene_rows_),
             std::clamp(whole(right) + 2, int64_t{0}, scene_cols_)};
    boxes_.push_back(box);
  }
  build_grid();
}

void Rasterizer::build_grid() {
  bool any = false;
  int64_t used = 0;
  for (const Box& box : boxes_) {
    if (box.top >= box.bottom || box.left >= box.right) continue;
    ++used;
    if (!any) extent_ = box;
    any = true;
    extent_ = {std::min(extent_.top, box.top), std::min(extent_.left, box.left), std::max(extent_.bottom, box.bottom),
               std::max(extent_.right, box.right)};
  }
  if (!any) return;
  const auto height = static_cast<double>(extent_.bottom - extent_.top);
  const auto width = static_cast<double>(extent_.right - extent_.left);
  // About one cell per part; a long thin scene may need longer cells to stay near that.
  const double area_side = std::sqrt(height * width / static_cast<double>(used));
  cell_ = std::max({kSmallestCell, static_cast<int64_t>(area_side),
                    static_cast<int64_t>(std::max(height, width) / static_cast<double>(used))});
  grid_rows_ = (extent_.bottom - extent_.top + cell_ - 1) / cell_;
  grid_cols_ = (extent_.right - extent_.left + cell_ - 1) / cell_;

  cell_start_.assign(static_cast<size_t>(grid_rows_ * grid_cols_ + 1), 0);
  const auto parts = static_cast<int64_t>(boxes_.size());
  // Counted in a first pass, filed in a second.
  for (const bool file : {false, true}) {
    for (int64_t p = 0; p < parts; ++p) {
      const Box& box = boxes_[static_cast<size_t>(p)];
      if (box.top >= box.bottom || box.left >= box.right) continue;
      const int64_t i0 = (box.top - extent_.top) / cell_;
      const int64_t i1 = (box.bottom - 1 - extent_.top) / cell_;
      const int64_t j0 = (box.left - extent_.left) / cell_;
      const int64_t j1 = (box.right - 1 - extent_.left) / cell_;
      if ((i1 - i0 + 1) * (j1 - j0 + 1) > kMostCells) {
        if (file) large_.push_back(p);
        continue;
      }
      for (int64_t i = i0; i <= i1; ++i)
        for (int64_t j = j0; j <= j1; ++j) {
          int64_t& slot = cell_start_[static_cast<size_t>(i * grid_cols_ + j)];
          if (file)
            cell_parts_[static_cast<size_t>(--slot)] = p;
          else
            ++slot;
        }
    }
    if (!file) {
      // Running ends: filing counts each cell's end down to its start.
      for (size_t c = 1; c < cell_start_.size(); ++c) cell_start_[c] += cell_start_[c - 1];
      cell_parts_.resize(static_cast<size_t>(cell_start_.back()));
    }
  }
}

void Rasterizer::find(const Window& window, std::vector<int64_t>& parts) const {
  parts = large_;
  const int64_t top = std::max(window.row, extent_.top);
  const int64_t left = std::max(window.col, extent_.left);
  const int64_t bottom = std::min(window.row + window.rows, extent_.bottom);
  const int64_t right = std::min(window.col + window.cols, extent_.right);
  if (top >= bottom || left >= right) {
    parts.clear();
    return;
  }
  for (int64_t i = (top - extent_.top) / cell_; i <= (bottom - 1 - extent_.top) / cell_; ++i) {
    for (int64_t j = (left - extent_.left) / cell_; j <= (right - 1 - extent_.left) / cell_; ++j) {
      const auto c = static_cast<size_t>(i * grid_cols_ + j);
      parts.insert(parts.end(), cell_parts_.begin() + cell_start_[c], cell_parts_.begin() + cell_start_[c + 1]);
    }
  }
  std::sort(parts.begin(), parts.end());
  parts.erase(std::unique(parts.begin(), parts.end()), parts.end());
  parts.erase(std::remove_if(parts.begin(), parts.end(),
                             [&](int64_t p) {
                               const Box& box = boxes_[static_cast<size_t>(p)];
                               return box.top >= bottom || box.bottom <= top || box.left >= right || box.right <= left;
                             }),
              parts.end());
}

void Rasterizer::windows(const Window* windows, int64_t n, uint8_t background, uint8_t* out, int threads) const {
  if (n == 0) return;
  const int64_t rows = windows[0].rows;
  const int64_t cols = windows[0].cols;
  const int64_t strips = std::max<int64_t>(1, (rows + kStrip - 1) / kStrip);
  parallel(n * strips, threads, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t w = k / strips;
      const int64_t from = (k % strips) * kStrip;
      const int64_t height = std::min(kStrip, rows - from);
      uint8_t* part = out + (w * rows + from) * cols;
      std::memset(part, background, static_cast<size_t>(height * cols));
      burn({windows[w].row + from, windows[w].col, height, cols}, part);
    }
  });
}

void Rasterizer::burn(const Window& window, uint8_t* out) const {
  std::vector<int64_t> parts;
  std::vector<uint64_t> crossings;
  find(window, parts);
  Canvas canvas{out,
                std::max<int64_t>(window.row, 0),
                std::max<int64_t>(window.col, 0),
                std::min(window.row + window.rows, scene_rows_),
                std::min(window.col + window.cols, scene_cols_),
                window.cols,
                window.row,
                window.col,
                0};
  for (int64_t p : parts) {
    canvas.value = value_[static_cast<size_t>(p)];
    switch (kinds_[static_cast<size_t>(p)]) {
      case Kind::kPoints:
        points(p, canvas);
        break;
      case Kind::kLine:
        if (all_touched_)
          touch(p, canvas, false);
        else
          line(p, canvas);
        break;
      case Kind::kPolygon:
        fill(p, canvas, crossings);
        if (all_touched_) touch(p, canvas, true);
        break;
    }
  }
}

void Rasterizer::fill(int64_t part, const Canvas& canvas, std::vector<uint64_t>& crossings) const {
  // A crossing is kept as scanline << 32 | column, both counted from the window's corner; columns outside the window
  // are moved to its edge, which changes neither their order nor their number.
  crossings.clear();
  const auto left = static_cast<double>(canvas.left);
  const auto right = static_cast<double>(canvas.right);
  for (int64_t r = part_start_[static_cast<size_t>(part)]; r < part_start_[static_cast<size_t>(part + 1)]; ++r) {
    for (int64_t i = ring_start_[static_cast<size_t>(r)] + 1; i < ring_start_[static_cast<size_t>(r + 1)]; ++i) {
      const Point& a = coords_[static_cast<size_t>(i - 1)];
      const Point& b = coords_[static_cast<size_t>(i)];
      if (a.y == b.y) {
        const int64_t y = first_scanline(a.y);
        const bool right_to_left = (a.x > b.x) == (clockwise_[static_cast<size_t>(r)] != 0);
        if (a.x != b.x && right_to_left && static_cast<double>(y) + 0.5 == a.y)
          canvas.span(y, whole(std::min(a.x, b.x) + 0.5), whole(std::max(a.x, b.x) + 0.5));
        continue;
      }
      const Point& upper = a.y < b.y ? a : b;
      const Point& lower = a.y < b.y ? b : a;
      const int64_t first = std::max(canvas.top, first_scanline(upper.y));
      const int64_t last = std::min(canvas.bottom, first_scanline(lower.y));
      for (int64_t y = first; y < last; ++y) {
        const double centre = static_cast<double>(y) + 0.5;
        const double at = (centre - upper.y) * (lower.x - upper.x) / (lower.y - upper.y) + upper.x;
        const auto col = static_cast<int64_t>(std::clamp(std::floor(at + 0.5), left, right));
        crossings.push_back(static_cast<uint64_t>(y - canvas.top) << 32 | static_cast<uint64_t>(col - canvas.left));
      }
    }
  }
  std::sort(crossings.begin(), crossings.end());
  // Rings are closed, so every scanline has an even number of crossings.
  for (size_t i = 0; i + 1 < crossings.size(); i += 2) {
    const int64_t y = canvas.top + static_cast<int64_t>(crossings[i] >> 32);
    canvas.span(y, canvas.left + static_cast<int64_t>(crossings[i] & 0xFFFFFFFFu),
                canvas.left + static_cast<int64_t>(crossings[i + 1] & 0xFFFFFFFFu));
  }
}

void Rasterizer::touch(int64_t part, const Canvas& canvas, bool edges) const {
  const auto scene_bottom = static_cast<double>(scene_rows_);
  const auto scene_right = static_cast<double>(scene_cols_);
  for (int64_t r = part_start_[static_cast<size_t>(part)]; r < part_start_[static_cast<size_t>(part + 1)]; ++r) {
    for (int64_t i = ring_start_[static_cast<size_t>(r)] + 1; i < ring_start_[static_cast<size_t>(r + 1)]; ++i) {
      Point a = coords_[static_cast<size_t>(i - 1)];
      Point b = coords_[static_cast<size_t>(i)];
      if ((a.y < 0 && b.y < 0) || (a.y > scene_bottom && b.y > scene_bottom) || (a.x < 0 && b.x < 0) ||
          (a.x > scene_right && b.x > scene_right))
        continue;
      if (a.x > b.x) std::swap(a, b);
      // Nothing to see in this window; a pixel of margin for what rounding does.
      if (whole(std::max(a.y, b.y)) + 1 < canvas.top || whole(std::min(a.y, b.y)) - 1 >= canvas.bottom ||
          whole(b.x) + 1 < canvas.left || whole(a.x) - 1 >= canvas.right)
        continue;

      if (std::floor(a.x) == std::floor(b.x) || std::abs(a.x - b.x) < kNear) {
        if (edges && on_pixel_edge(a.x) && on_pixel_edge(b.x)) continue;
        const int64_t x = whole(b.x);
        const int64_t last = std::min(whole(std::max(a.y, b.y)), canvas.bottom - 1);
        for (int64_t y = std::max(whole(std::min(a.y, b.y)), canvas.top); y <= last; ++y) canvas.pixel(y, x);
        continue;
      }
      if (std::floor(a.y) == std::floor(b.y) || std::abs(a.y - b.y) < kNear) {
        if (edges && on_pixel_edge(a.y) && on_pixel_edge(b.y)) continue;
        canvas.span(whole(a.y), whole(a.x), whole(b.x) + 1);
        continue;
      }

      const double slope = (b.y - a.y) / (b.x - a.x);
      if (b.x > scene_right) {
        b.y -= (b.x - scene_right) * slope;
        b.x = scene_right;
      }
      if (a.x < 0) {
        a.y += (0.0 - a.x) * slope;
        a.x = 0;
      }
      if (b.y > a.y) {
        if (a.y < 0) {
          a.x += (0.0 - a.y) / slope;
          a.y = 0;
        }
      } else {
        if (a.y >= scene_bottom) {
          a.x += (scene_bottom - a.y) / slope;
          a.y = scene_bottom;
        }
        if (b.y < 0) b.x -= b.y / slope;
      }

      double x = a.x;
      double y = a.y;
      while (x >= 0 && x < b.x) {
        const int64_t col = whole(x);
        const int64_t row = whole(y);
        canvas.pixel(row, col);
        // Further steps only lead further away from the window.
        if (col >= canvas.right || (slope > 0 ? row >= canvas.bottom : row < canvas.top)) break;
        double step_x = std::floor(x + 1.0) - x;
        double step_y = step_x * slope;
        if (whole(y + step_y) != row) {
          step_y = slope < 0 ? std::min(static_cast<double>(row) - y, -kSmallStep)
                             : std::max(static_cast<double>(row + 1) - y, kSmallStep);
          step_x = step_y / slope;
        }
        x += step_x;
        y += step_y;
      }
    }
  }
}

void Rasterizer::line(int64_t part, const Canvas& canvas) const {
  const int64_t r = part_start_[static_cast<size_t>(part)];
  for (int64_t i = ring_start_[static_cast<size_t>(r)] + 1; i < ring_start_[static_cast<size_t>(r + 1)]; ++i) {
    // From the later vertex to the earlier one: where the line passes between two pixels, the direction decides.
    const Point& a = coords_[static_cast<size_t>(i)];
    const Point& b = coords_[static_cast<size_t>(i - 1)];
    const int64_t x0 = whole(a.x);
    const int64_t y0 = whole(a.y);
    const int64_t step_x = whole(b.x) < x0 ? -1 : 1;
    const int64_t step_y = whole(b.y) < y0 ? -1 : 1;
    const int64_t delta_x = std::abs(whole(b.x) - x0);
    const int64_t delta_y = std::abs(whole(b.y) - y0);
    const bool flat = delta_x >= delta_y;
    const int64_t longer = flat ? delta_x : delta_y;
    const int64_t shorter = flat ? delta_y : delta_x;
    // Steps along the longer axis that fall into the window, then the other axis in closed form.
    const int64_t start = flat ? x0 : y0;
    const int64_t step = flat ? step_x : step_y;
    const int64_t low = flat ? canvas.left : canvas.top;
    const int64_t high = flat ? canvas.right : canvas.bottom;
    const int64_t first = std::max<int64_t>(0, step > 0 ? low - start : start - high + 1);
    const int64_t last = std::min(longer, step > 0 ? high - 1 - start : start - low);
    for (int64_t k = first; k <= last; ++k) {
      const int64_t across = longer == 0 ? 0 : (2 * shorter * k + longer - 1) / (2 * longer);
      if (flat)
        canvas.pixel(y0 + step_y * across, x0 + step_x * k);
      else
        canvas.pixel(y0 + step_y * k, x0 + step_x * across);
    }
  }
}

void Rasterizer::points(int64_t part, const Canvas& canvas) const {
  const int64_t r = part_start_[static_cast<size_t>(part)];
  for (int64_t i = ring_start_[static_cast<size_t>(r)]; i < ring_start_[static_cast<size_t>(r + 1)]; ++i)
    canvas.pixel(whole(coords_[static_cast<size_t>(i)].y), whole(coords_[static_cast<size_t>(i)].x));
}

}  // namespace rvk
