#include "ops/rasterize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "dispatch.h"
#include "parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rvk {
namespace {

constexpr double kNear = 0.01;       // a segment this close to one column or row, or to a pixel edge, counts as on it
constexpr double kSmallStep = 1e-9;  // a step across a row is at least this, so that rounding cannot stop the walk
constexpr int64_t kTile = 512;       // rows and columns of a piece of work at most: it stays in the L2 cache
constexpr int kSmallestCellBits = 4;
constexpr int64_t kRun = 64;                // edges of a long ring that are left out together where they are far away
constexpr int32_t kWord = 64;               // pixels in a word of a bit mask
constexpr int64_t kSmallWork = 128 * 1024;  // pixels below which a second thread costs more than it gains

int64_t whole(double v) { return static_cast<int64_t>(std::floor(v)); }

bool on_pixel_edge(double v) { return std::abs(v - std::round(v)) < kNear; }

// The first scanline whose centre is at or below y.
inline RVK_INLINE int32_t first_scanline(double y) { return static_cast<int32_t>(std::ceil(y - 0.5)); }

}  // namespace

// The pixels `box` of the scene, in a mask whose corner is at (row, col) of the scene.
template <typename T>
struct Rasterizer::Canvas {
  T* out;
  int64_t row, col, stride;
  Box box;
  T value;

  T* at(int64_t y, int64_t x) const { return out + (y - row) * stride + (x - col); }

  void span(int64_t y, int64_t begin, int64_t end) const {
    begin = std::max<int64_t>(begin, box.left);
    end = std::min<int64_t>(end, box.right);
    if (y >= box.top && y < box.bottom && begin < end) std::fill(at(y, begin), at(y, end), value);
  }

  void pixel(int64_t y, int64_t x) const {
    if (y >= box.top && y < box.bottom && x >= box.left && x < box.right) *at(y, x) = value;
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

// Bit masks of the pixels inside a part, one bit per pixel of a box: word w of row y is inside[w * stride + y - top]
// and holds the columns from left + w * 64. Each crossing turns over the pixels from its column on, so that what is
// turned over an odd number of times is inside, without sorting.
struct Masks {
  uint64_t* inside;
  int32_t stride, words;
  int32_t top, left, bottom, right;

  // The pixels of word w that are left of `right`. Edges beyond it are left out, so that the rest means nothing.
  uint64_t width(int32_t w) const {
    const int32_t beyond = (w + 1) * kWord - (right - left);
    return beyond > 0 ? ~uint64_t{0} >> beyond : ~uint64_t{0};
  }
};

// Eight rows at a time; compilers make of these what the instruction set has.
typedef double Doubles __attribute__((vector_size(64)));
typedef int64_t Longs __attribute__((vector_size(64)));
typedef uint64_t Words __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(32)));
constexpr int32_t kBlock = 8;

// Calls f(first, last) with the edges of the ring of points [begin, end) that may come near a window, in stretches; an
// edge goes by the point it ends at.
template <typename B, typename F>
inline RVK_INLINE void near_edges(const B* runs, int64_t begin, int64_t end, const B window, F f) {
  if (end - begin <= 2 * kRun) return f(begin + 1, end);
  for (int64_t i = begin + 1; i < end;) {
    const int64_t last = std::min(end, (i / kRun + 1) * kRun);
    const B& run = runs[i / kRun];
    if (run.top < window.bottom && run.bottom > window.top && run.left < window.right && run.right > window.left)
      f(i, last);
    i = last;
  }
}

// Turn over what edges `first` to `last` - 1 cross. Returns whether one of them lies on a scanline's centre.
template <typename P>
inline RVK_INLINE bool cross_edges(const P* coords, int64_t first_edge, int64_t last_edge, const Masks m) {
  bool level = false;
  const auto left = static_cast<double>(m.left);
  const auto right = static_cast<double>(m.right);
  int32_t scanline_b = first_scanline(coords[first_edge - 1].y);
  for (int64_t i = first_edge; i < last_edge; ++i) {
    const P a = coords[i - 1];
    const P b = coords[i];
    const int32_t scanline_a = scanline_b;
    scanline_b = first_scanline(b.y);
    const int32_t first = std::max(m.top, std::min(scanline_a, scanline_b));
    const int32_t last = std::min(m.bottom, std::max(scanline_a, scanline_b));
    if (first >= last) {
      level |= a.y == b.y && a.y == static_cast<double>(scanline_a) + 0.5;
      continue;
    }
    const double leftmost = std::min(a.x, b.x) - 1;  // rounding may place a crossing a pixel beside its edge
    if (leftmost >= right) continue;
    const int32_t first_word = leftmost <= left ? 0 : (static_cast<int32_t>(leftmost) - m.left) / kWord;
    const P upper = a.y < b.y ? a : b;
    const P lower = a.y < b.y ? b : a;
    const double dx = lower.x - upper.x;
    const double dy = lower.y - upper.y;
    for (int32_t y = first; y < last; y += kBlock) {
      const Ints rows = Ints{0, 1, 2, 3, 4, 5, 6, 7} + y;
      const Doubles centre = __builtin_convertvector(rows, Doubles) + 0.5;
      Doubles at = (centre - upper.y) * dx / dy + upper.x + 0.5;
      at = at > left ? at : Doubles{} + left;
      at = at < right ? at : Doubles{} + right;
      // Not negative, so that truncation is floor. Rows below the edge turn over nothing.
      const Ints from = rows < last ? __builtin_convertvector(at, Ints) - m.left : std::numeric_limits<int32_t>::max();
      for (int32_t w = first_word; w < m.words; ++w) {
        Longs bit = __builtin_convertvector(from, Longs) - int64_t{w} * kWord;
        bit = bit > 0 ? bit : 0;
        const Words over = bit < kWord ? ~Words{} << (Words)(bit & (kWord - 1)) : Words{};
        uint64_t* inside = m.inside + w * m.stride + (y - m.top);
        Words words;
        std::memcpy(&words, inside, sizeof words);
        words ^= over;
        std::memcpy(inside, &words, sizeof words);
      }
    }
  }
  return level;
}

#if defined(__x86_64__)
template <typename T>
RVK_V4 void paint_v4(const Masks m, T* out, int64_t stride, T value) {
  constexpr int kLanes = 64 / sizeof(T);
  __m512i v;
  if constexpr (sizeof(T) == 1)
    v = _mm512_set1_epi8(static_cast<char>(value));
  else if constexpr (sizeof(T) == 2)
    v = _mm512_set1_epi16(static_cast<int16_t>(value));
  else
    v = _mm512_set1_epi32(static_cast<int32_t>(value));
  for (int32_t w = 0; w < m.words; ++w) {
    const uint64_t width = m.width(w);
    for (int32_t y = 0; y < m.bottom - m.top; ++y) {
      const uint64_t inside = m.inside[w * m.stride + y] & width;
      T* p = out + y * stride + w * kWord;
      for (int k = 0; k < kWord; k += kLanes) {
        const uint64_t lanes = inside >> k;
        if constexpr (sizeof(T) == 1)
          _mm512_mask_storeu_epi8(p + k, lanes, v);
        else if constexpr (sizeof(T) == 2)
          _mm512_mask_storeu_epi16(p + k, static_cast<__mmask32>(lanes), v);
        else
          _mm512_mask_storeu_epi32(p + k, static_cast<__mmask16>(lanes), v);
      }
    }
  }
}
#endif

// Write `value` where the masks say; out is the pixel at the masks' corner.
template <typename T>
void paint(const Masks m, T* out, int64_t stride, T value) {
#if defined(__x86_64__)
  if (isa() >= Isa::v4) return paint_v4(m, out, stride, value);
#endif
  for (int32_t w = 0; w < m.words; ++w) {
    const uint64_t width = m.width(w);
    for (int32_t y = 0; y < m.bottom - m.top; ++y) {
      T* p = out + y * stride + w * kWord;
      for (uint64_t rest = m.inside[w * m.stride + y] & width; rest != 0;) {
        const int begin = __builtin_ctzll(rest);
        const uint64_t gaps = ~(rest | (rest - 1));  // above the first run
        const int end = gaps == 0 ? kWord : __builtin_ctzll(gaps);
        std::fill(p + begin, p + end, value);
        rest &= rest + (rest & -rest);  // without that run
      }
    }
  }
}

}  // namespace

Rasterizer::Rasterizer(const GeometryArrays& geometries, const int32_t* values, int64_t scene_rows, int64_t scene_cols,
                       bool all_touched)
    : scene_rows_(scene_rows), scene_cols_(scene_cols), all_touched_(all_touched) {
  if (geometries.parts > std::numeric_limits<int32_t>::max())
    throw std::invalid_argument("kinds: more than 2^31 parts");
  file(geometries, measure(geometries, values));
}

Rasterizer::Box Rasterizer::overlap(const Box& a, const Box& b) {
  return {std::max(a.top, b.top), std::max(a.left, b.left), std::min(a.bottom, b.bottom), std::min(a.right, b.right)};
}

// The pixels of n points (x, y) and one more on each side: rounding may burn a neighbour.
Rasterizer::Box Rasterizer::around(const double* points, int64_t n) {
  double left = points[0];
  double right = left;
  double top = points[1];
  double bottom = top;
  for (int64_t i = 1; i < n; ++i) {
    left = std::min(left, points[2 * i]);
    right = std::max(right, points[2 * i]);
    top = std::min(top, points[2 * i + 1]);
    bottom = std::max(bottom, points[2 * i + 1]);
  }
  return {static_cast<int32_t>(std::floor(top)) - 1, static_cast<int32_t>(std::floor(left)) - 1,
          static_cast<int32_t>(std::floor(bottom)) + 2, static_cast<int32_t>(std::floor(right)) + 2};
}

// The parts that reach the scene, with their rings in the arrays given.
std::vector<Rasterizer::Part> Rasterizer::measure(const GeometryArrays& g, const int32_t* values) const {
  std::vector<Part> found;
  found.reserve(static_cast<size_t>(g.parts));
  for (int64_t f = 0; f < g.features; ++f) {
    for (int64_t p = g.feature_start[f]; p < g.feature_start[f + 1]; ++p) {
      const int64_t begin = g.ring_start[g.part_start[p]];
      const int64_t end = g.ring_start[g.part_start[p + 1]];
      if (begin == end) continue;
      const Box box = overlap(around(g.coords + 2 * begin, end - begin),
                              {0, 0, static_cast<int32_t>(scene_rows_), static_cast<int32_t>(scene_cols_)});
      if (!box.empty())
        found.push_back({box, values[f], static_cast<int32_t>(p), g.part_start[p], g.part_start[p + 1],
                         static_cast<Kind>(g.kinds[p])});
    }
  }
  return found;
}

// Sort the parts into levels and cells, and copy their rings and points in that order.
void Rasterizer::file(const GeometryArrays& g, const std::vector<Part>& found) {
  const auto bits_of = [](const Box& box) {
    int bits = kSmallestCellBits;
    while (std::max(box.bottom - box.top, box.right - box.left) > int64_t{1} << bits) ++bits;
    return bits;
  };
  std::array<Level, 32> by_bits{};
  std::array<int64_t, 32> number{};
  for (const Part& part : found) {
    const auto bits = static_cast<size_t>(bits_of(part.box));
    const Box corner{part.box.top, part.box.left, part.box.top + 1, part.box.left + 1};
    Box& extent = by_bits[bits].extent;
    extent = number[bits]++ == 0 ? corner
                                 : Box{std::min(extent.top, corner.top), std::min(extent.left, corner.left),
                                       std::max(extent.bottom, corner.bottom), std::max(extent.right, corner.right)};
  }
  int64_t cells = 0;
  std::array<size_t, 32> level_of{};
  for (size_t bits = 0; bits < by_bits.size(); ++bits) {
    if (number[bits] == 0) continue;
    Level level = by_bits[bits];
    level.bits = static_cast<int>(bits);
    // Larger cells where there would be more of them than parts.
    for (;; ++level.bits) {
      level.rows = ((level.extent.bottom - 1 - level.extent.top) >> level.bits) + 1;
      level.cols = ((level.extent.right - 1 - level.extent.left) >> level.bits) + 1;
      if (level.rows * level.cols <= std::max<int64_t>(1, number[bits])) break;
    }
    level.first_cell = cells;
    cells += level.rows * level.cols;
    level_of[bits] = levels_.size();
    levels_.push_back(level);
  }

  std::vector<int32_t> cell_of(found.size());
  cell_start_.assign(static_cast<size_t>(cells + 1), 0);
  for (size_t p = 0; p < found.size(); ++p) {
    const Box& box = found[p].box;
    const Level& level = levels_[level_of[static_cast<size_t>(bits_of(box))]];
    const int64_t cell = level.first_cell + ((box.top - level.extent.top) >> level.bits) * level.cols +
                         ((box.left - level.extent.left) >> level.bits);
    cell_of[p] = static_cast<int32_t>(cell);
    ++cell_start_[static_cast<size_t>(cell)];
  }
  // Running ends, which filing counts down to the starts.
  for (size_t c = 1; c < cell_start_.size(); ++c) cell_start_[c] += cell_start_[c - 1];
  parts_.resize(found.size());
  for (size_t p = found.size(); p-- > 0;)
    parts_[static_cast<size_t>(--cell_start_[static_cast<size_t>(cell_of[p])])] = found[p];

  ring_start_.push_back(0);
  for (Part& part : parts_) {
    const int64_t begin = g.ring_start[part.ring_begin];
    const int64_t end = g.ring_start[part.ring_end];
    const int64_t shift = static_cast<int64_t>(coords_.size()) - begin;
    const auto rings = static_cast<int64_t>(ring_start_.size()) - 1;
    for (int64_t r = part.ring_begin; r < part.ring_end; ++r) ring_start_.push_back(g.ring_start[r + 1] + shift);
    for (int64_t i = begin; i < end; ++i) coords_.push_back({g.coords[2 * i], g.coords[2 * i + 1]});
    part.ring_end += rings - part.ring_begin;
    part.ring_begin = rings;
  }
  const auto points = static_cast<int64_t>(coords_.size());
  for (int64_t i = 0; i < points; i += kRun) {
    const int64_t first = std::max<int64_t>(0, i - 1);
    runs_.push_back(around(&coords_[static_cast<size_t>(first)].x, std::min(points, i + kRun) - first));
  }
}

// The parts whose boxes meet the window, in their order.
void Rasterizer::find(const Box& window, std::vector<uint64_t>& parts) const {
  parts.clear();
  if (window.empty()) return;
  // Cells from `end` - 1 back to those whose parts may reach as far as `begin`.
  const auto cells = [](int64_t begin, int64_t end, int64_t origin, int64_t number, int bits) {
    const int64_t first = (begin + 1 - (int64_t{1} << bits) - origin) >> bits;
    const int64_t last = (end - 1 - origin) >> bits;
    return std::pair<int64_t, int64_t>{std::max<int64_t>(first, 0), std::min(last, number - 1)};
  };
  for (const Level& level : levels_) {
    const auto [top, bottom] = cells(window.top, window.bottom, level.extent.top, level.rows, level.bits);
    const auto [left, right] = cells(window.left, window.right, level.extent.left, level.cols, level.bits);
    if (left > right) continue;
    for (int64_t i = top; i <= bottom; ++i) {
      const int32_t* start = cell_start_.data() + level.first_cell + i * level.cols;
      for (int32_t p = start[left]; p < start[right + 1]; ++p) {
        const Part& part = parts_[static_cast<size_t>(p)];
        if (overlap(part.box, window).empty()) continue;
        parts.push_back(static_cast<uint64_t>(part.order) << 32 | static_cast<uint64_t>(p));
        // Its points are wanted as soon as all parts are found.
        const Point* points = coords_.data() + ring_start_[static_cast<size_t>(part.ring_begin)];
        __builtin_prefetch(points);
        __builtin_prefetch(points + 4);
      }
    }
  }
  std::sort(parts.begin(), parts.end());
}

template <typename T>
void Rasterizer::windows(const Window* windows, int64_t n, T background, T* out, int threads) const {
  if (n == 0) return;
  const int64_t rows = windows[0].rows;
  const int64_t cols = windows[0].cols;
  // Pieces of equal size, none larger than a tile.
  const int64_t down = std::max<int64_t>(1, (rows + kTile - 1) / kTile);
  const int64_t across = std::max<int64_t>(1, (cols + kTile - 1) / kTile);
  const int64_t height = (rows + down - 1) / down;
  const int64_t width = (cols + across - 1) / across;
  if (n * rows * cols < kSmallWork) threads = 1;
  const int64_t grain = std::max<int64_t>(1, kSmallWork / std::max<int64_t>(1, height * width));
  const auto work = [&](int64_t begin, int64_t end) {
    Scratch scratch;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t w = k / (down * across);
      const int64_t from_row = std::min(rows, k / across % down * height);
      const int64_t from_col = std::min(cols, k % across * width);
      const int64_t piece_rows = std::min(height, rows - from_row);
      const int64_t piece_cols = std::min(width, cols - from_col);
      const int64_t top = windows[w].row + from_row;
      const int64_t left = windows[w].col + from_col;
      Canvas<T> canvas{out + (w * rows + from_row) * cols + from_col, top, left, cols, {}, 0};
      if (piece_cols == cols) {
        std::fill_n(canvas.out, piece_rows * cols, background);
      } else {
        for (int64_t y = 0; y < piece_rows; ++y) std::fill_n(canvas.out + y * cols, piece_cols, background);
      }
      canvas.box = overlap({static_cast<int32_t>(top), static_cast<int32_t>(left),
                            static_cast<int32_t>(top + piece_rows), static_cast<int32_t>(left + piece_cols)},
                           {0, 0, static_cast<int32_t>(scene_rows_), static_cast<int32_t>(scene_cols_)});
      burn(canvas, scratch);
    }
  };
  parallel(n * down * across, threads, work, grain);
}

template <typename T>
void Rasterizer::burn(const Canvas<T>& window, Scratch& scratch) const {
  find(window.box, scratch.parts);
  Canvas<T> canvas = window;
  for (const uint64_t found : scratch.parts) {
    const Part& part = parts_[static_cast<uint32_t>(found)];
    canvas.value = static_cast<T>(part.value);
    switch (part.kind) {
      case Kind::kPoints:
        points(part, canvas);
        break;
      case Kind::kLine:
        if (all_touched_)
          touch(part, canvas, false);
        else
          line(part, canvas);
        break;
      case Kind::kPolygon:
        fill(part, canvas, scratch.inside);
        if (all_touched_) touch(part, canvas, true);
        break;
    }
  }
}

template <typename T>
void Rasterizer::fill(const Part& part, const Canvas<T>& canvas, std::vector<uint64_t>& inside) const {
  const Box box = overlap(part.box, canvas.box);
  Masks masks{nullptr,
              box.bottom - box.top + kBlock,
              (box.right - box.left + kWord - 1) / kWord,
              box.top,
              box.left,
              box.bottom,
              box.right};
  inside.assign(static_cast<size_t>(masks.words * masks.stride), 0);
  masks.inside = inside.data();
  Box leftwards = box;  // what is left of the box turns over all of its row
  leftwards.left = std::numeric_limits<int32_t>::min();
  const Point* coords = coords_.data();
  const Box* runs = runs_.data();
  const int64_t* begin = ring_start_.data() + part.ring_begin;
  const int64_t* end = ring_start_.data() + part.ring_end;
  const bool level = dispatch([=]() RVK_INLINE {
    bool any = false;
    for (const int64_t* r = begin; r < end; ++r)
      near_edges(runs, r[0], r[1], leftwards,
                 [&](int64_t first, int64_t last) RVK_INLINE { any |= cross_edges(coords, first, last, masks); });
    return any;
  });
  paint(masks, canvas.at(box.top, box.left), canvas.stride, canvas.value);
  if (level) fill_level_edges(part, canvas);
}

// The edges that lie on a scanline's centre.
template <typename T>
void Rasterizer::fill_level_edges(const Part& part, const Canvas<T>& canvas) const {
  for (int64_t r = part.ring_begin; r < part.ring_end; ++r) {
    const Point* ring = coords_.data() + ring_start_[static_cast<size_t>(r)];
    const int64_t n = ring_start_[static_cast<size_t>(r + 1)] - ring_start_[static_cast<size_t>(r)];
    const bool clockwise = runs_clockwise(ring, n);
    for (int64_t i = 1; i < n; ++i) {
      const Point& a = ring[i - 1];
      const Point& b = ring[i];
      const int64_t y = first_scanline(a.y);
      if (a.y != b.y || a.x == b.x || (a.x > b.x) != clockwise || static_cast<double>(y) + 0.5 != a.y) continue;
      canvas.span(y, whole(std::min(a.x, b.x) + 0.5), whole(std::max(a.x, b.x) + 0.5));
    }
  }
}

template <typename T>
void Rasterizer::touch(const Part& part, const Canvas<T>& canvas, bool edges) const {
  for (int64_t r = part.ring_begin; r < part.ring_end; ++r) {
    const auto ring = static_cast<size_t>(r);
    near_edges(runs_.data(), ring_start_[ring], ring_start_[ring + 1], canvas.box, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        touch_segment(coords_[static_cast<size_t>(i - 1)], coords_[static_cast<size_t>(i)], canvas, edges);
    });
  }
}

template <typename T>
void Rasterizer::touch_segment(Point a, Point b, const Canvas<T>& canvas, bool edges) const {
  const auto scene_bottom = static_cast<double>(scene_rows_);
  const auto scene_right = static_cast<double>(scene_cols_);
  if ((a.y < 0 && b.y < 0) || (a.y > scene_bottom && b.y > scene_bottom) || (a.x < 0 && b.x < 0) ||
      (a.x > scene_right && b.x > scene_right))
    return;
  if (a.x > b.x) std::swap(a, b);
  // Nothing to see in this window; a pixel of margin for what rounding does.
  if (whole(std::max(a.y, b.y)) + 1 < canvas.box.top || whole(std::min(a.y, b.y)) - 1 >= canvas.box.bottom ||
      whole(b.x) + 1 < canvas.box.left || whole(a.x) - 1 >= canvas.box.right)
    return;

  if (std::floor(a.x) == std::floor(b.x) || std::abs(a.x - b.x) < kNear) {
    if (edges && on_pixel_edge(a.x) && on_pixel_edge(b.x)) return;
    const int64_t x = whole(b.x);
    const int64_t last = std::min(whole(std::max(a.y, b.y)), int64_t{canvas.box.bottom} - 1);
    for (int64_t y = std::max<int64_t>(whole(std::min(a.y, b.y)), canvas.box.top); y <= last; ++y) canvas.pixel(y, x);
    return;
  }
  if (std::floor(a.y) == std::floor(b.y) || std::abs(a.y - b.y) < kNear) {
    if (edges && on_pixel_edge(a.y) && on_pixel_edge(b.y)) return;
    canvas.span(whole(a.y), whole(a.x), whole(b.x) + 1);
    return;
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
    if (col >= canvas.box.right || (slope > 0 ? row >= canvas.box.bottom : row < canvas.box.top)) break;
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

template <typename T>
void Rasterizer::line(const Part& part, const Canvas<T>& canvas) const {
  const int64_t r = part.ring_begin;
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
    const int64_t low = flat ? canvas.box.left : canvas.box.top;
    const int64_t high = flat ? canvas.box.right : canvas.box.bottom;
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

template <typename T>
void Rasterizer::points(const Part& part, const Canvas<T>& canvas) const {
  const int64_t r = part.ring_begin;
  for (int64_t i = ring_start_[static_cast<size_t>(r)]; i < ring_start_[static_cast<size_t>(r + 1)]; ++i)
    canvas.pixel(whole(coords_[static_cast<size_t>(i)].y), whole(coords_[static_cast<size_t>(i)].x));
}

template void Rasterizer::windows(const Window*, int64_t, uint8_t, uint8_t*, int) const;
template void Rasterizer::windows(const Window*, int64_t, uint16_t, uint16_t*, int) const;
template void Rasterizer::windows(const Window*, int64_t, int32_t, int32_t*, int) const;

}  // namespace rvk
