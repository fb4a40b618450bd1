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

// The features of a scene with grids over the bounding boxes of their parts. The arrays are copied.
class Rasterizer {
 public:
  // values: what each feature burns. scene_rows, scene_cols: nothing is burned outside [0, scene_rows) x [0,
  // scene_cols), and segments are clipped there as GDAL clips them at the raster's edge.
  Rasterizer(const GeometryArrays& geometries, const int32_t* values, int64_t scene_rows, int64_t scene_cols,
             bool all_touched);

  // Fill n windows of equal rows and cols, out (n, rows, cols): background, then every feature that reaches the window.
  // A window holds what the whole scene would hold there. T: uint8_t, uint16_t or int32_t, wide enough for the values.
  template <typename T>
  void windows(const Window* windows, int64_t n, T background, T* out, int threads) const;

 private:
  struct Point {
    double x, y;
  };
  struct Box {
    int32_t top, left, bottom, right;  // pixels, bottom and right exclusive
    bool empty() const { return top >= bottom || left >= right; }
  };
  struct Part {
    Box box;  // within the scene, not empty
    int32_t value, order;
    int64_t ring_begin, ring_end;
    Kind kind;
  };
  // Parts no larger than 2^bits pixels, by the cell of 2^bits x 2^bits pixels that the corner of their box is in: row
  // by row, so that the parts of neighbouring cells of a row lie side by side.
  struct Level {
    Box extent;  // of the corners
    int bits;
    int64_t rows, cols, first_cell;
  };
  struct Scratch {
    std::vector<uint64_t> parts;  // order << 32 | position in parts_
    std::vector<uint64_t> inside;
  };
  template <typename T>
  struct Canvas;

  static Box overlap(const Box& a, const Box& b);
  static Box around(const double* points, int64_t n);
  std::vector<Part> measure(const GeometryArrays& geometries, const int32_t* values) const;
  void file(const GeometryArrays& geometries, const std::vector<Part>& found);
  void find(const Box& window, std::vector<uint64_t>& parts) const;
  template <typename T>
  void burn(const Canvas<T>& canvas, Scratch& scratch) const;
  template <typename T>
  void fill(const Part& part, const Canvas<T>& canvas, std::vector<uint64_t>& inside) const;
  template <typename T>
  void fill_level_edges(const Part& part, const Canvas<T>& canvas) const;
  template <typename T>
  void touch(const Part& part, const Canvas<T>& canvas, bool edges) const;
  template <typename T>
  void touch_segment(Point a, Point b, const Canvas<T>& canvas, bool edges) const;
  template <typename T>
  void line(const Part& part, const Canvas<T>& canvas) const;
  template <typename T>
  void points(const Part& part, const Canvas<T>& canvas) const;

  int64_t scene_rows_, scene_cols_;
  bool all_touched_;
  // Parts in the order of the levels' cells, cell c holding [cell_start_[c], cell_start_[c + 1]), and their rings and
  // points in the same order: what lies together in a window lies together in memory.
  std::vector<Level> levels_;
  std::vector<int32_t> cell_start_;
  std::vector<Part> parts_;
  std::vector<int64_t> ring_start_;
  std::vector<Point> coords_;
  std::vector<Box> runs_;  // around the edges that end at each kRun points, with the part boxes' margin
};

}  // namespace rvk
