// Polygons, lines and points burned into a class mask, with the pixels that GDAL's rasterizer burns (GDAL 3.6, a raster
// whose rows run from north to south).
//
// Coordinates are x = column, y = row; pixel (row, col) covers [row, row+1) x [col, col+1). Features burn in their
// order, the later over the earlier; a feature's parts burn one by one.
//
// Polygon: a pixel whose centre is inside, by the even-odd rule over all rings of the part. Scanline y looks at
//   c = y + 0.5. An edge from (x1, y1) to (x2, y2), y1 < y2, crosses when y1 <= c < y2, at
//   floor((c - y1) * (x2 - x1) / (y2 - y1) + x1 + 0.5); pixels from each odd crossing up to the next one are burned.
//   An edge that lies on c burns the pixels from floor(x + 0.5) of its left end up to that of its right end when it
//   runs right to left on its ring taken clockwise (the lower side of the ring).
// Point: the pixel it lies in.
// Line: Bresenham's line from the pixel of each vertex to that of the vertex before it.
// All touched: a polygon burns its inside and its rings, a line burns itself, by walking each segment from left to
// right
//   through the pixels it passes. Segments within one column or row (or closer to it than 0.01) burn the column or row
//   from end to end; on a polygon's ring they burn nothing when they lie within 0.01 of a pixel edge.
// Clockwise is as seen on the raster, decided at the lowest and then rightmost vertex, as GDAL does.
#pragma once

#include <cstdint>
#include <vector>

namespace rvk {

struct Window {
  int64_t row, col, rows, cols;
};

enum class Kind : uint8_t { kPoints = 0, kLine = 1, kPolygon = 2 };

// Compressed rows: ring r holds points [ring_start[r], ring_start[r+1]), part p rings [part_start[p], part_start[p+1]),
// feature f parts [feature_start[f], feature_start[f+1]).
struct GeometryArrays {
  const double* coords;  // (points, 2): x, y, finite, within 2^29
  const int64_t* ring_start;
  const int64_t* part_start;
  const int64_t* feature_start;
  const uint8_t* kinds;  // a Kind per part; points and lines have one ring
  int64_t rings, parts, features;
};

// The features of a scene with a grid over the bounding boxes of their parts. The arrays are copied.
class Rasterizer {
 public:
  // scene_rows, scene_cols: nothing is burned outside [0, scene_rows) x [0, scene_cols), and segments are clipped there
  // as GDAL clips them at the raster's edge.
  Rasterizer(const GeometryArrays& geometries, const uint8_t* class_ids, int64_t scene_rows, int64_t scene_cols,
             bool all_touched);

  // Fill n windows of equal rows and cols, out (n, rows, cols): background, then every feature that reaches the window.
  // A window holds what the whole scene would hold there.
  void windows(const Window* windows, int64_t n, uint8_t background, uint8_t* out, int threads) const;

 private:
  struct Point {
    double x, y;
  };
  struct Box {
    int64_t top, left, bottom, right;  // pixels, bottom and right exclusive
  };
  struct Canvas;

  void build_grid();
  void find(const Window& window, std::vector<int64_t>& parts) const;
  void burn(const Window& window, uint8_t* out) const;
  void fill(int64_t part, const Canvas& canvas, std::vector<uint64_t>& crossings) const;
  void touch(int64_t part, const Canvas& canvas, bool edges) const;
  void line(int64_t part, const Canvas& canvas) const;
  void points(int64_t part, const Canvas& canvas) const;

  std::vector<Point> coords_;
  std::vector<int64_t> ring_start_, part_start_;
  std::vector<uint8_t> clockwise_;  // per ring
  std::vector<Kind> kinds_;         // per part
  std::vector<uint8_t> value_;      // per part
  std::vector<Box> boxes_;          // per part
  int64_t scene_rows_, scene_cols_;
  bool all_touched_;

  // Cell (i, j) of the grid covers cell_ x cell_ pixels and lists the parts whose boxes meet it. Parts that meet very
  // many cells are in large_ instead, so that the lists stay in proportion to the number of parts.
  Box extent_{0, 0, 0, 0};
  int64_t cell_ = 1, grid_rows_ = 0, grid_cols_ = 0;
  std::vector<int64_t> cell_start_, cell_parts_, large_;
};

}  // namespace rvk
