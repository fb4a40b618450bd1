// Where windows lie in an area of polygons, and how many pixels of a mask they hold.
//
// Windows are (n, 4) of row, col, rows, cols; a window is the rectangle [col, col + cols] x [row, row + rows], x =
// column and y = row. Both functions see each window on its own, so that results depend neither on order nor on
// threads.
#pragma once

#include <cstdint>
#include <vector>

namespace rvk {

enum class Place : uint8_t { outside = 0, partly = 1, within = 2 };

// Polygons that do not overlap, with a spatial index.
//
// A window is `partly` inside when some boundary segment meets its open rectangle; otherwise its middle decides between
// `within` and `outside` by the even-odd rule. So boundaries may touch those of a window that is within, and an area
// that only touches a window from outside leaves it outside. All decisions are exact: orientations are computed with an
// error bound, and where that does not settle the sign, as sums of exact products (Shewchuk 1997).
class Area {
 public:
  // coords (points, 2) x, y; ring r holds points [ring_start[r], ring_start[r + 1]) and is closed. Holes are rings,
  // too.
  Area(const double* coords, const int64_t* ring_start, int64_t rings);

  // out (n,) gets a Place per window. Rows and cols must be positive.
  void place(const int64_t* windows, int64_t n, uint8_t* out, int threads) const;

 private:
  struct Segment {
    double ax, ay, bx, by;
  };
  struct Box {
    double x0, y0, x1, y1;
  };

  static bool meets(const Segment& s, const Box& box);
  bool inside(double x, double y) const;
  Place place(const int64_t* window) const;
  int64_t column(double x) const;
  int64_t row(double y) const;

  std::vector<Segment> segments_;
  Box bounds_{0, 0, 0, 0};
  double cell_ = 1;
  int64_t rows_ = 0, cols_ = 0;
  std::vector<int64_t> cell_start_, row_start_;  // of the lists below
  std::vector<int32_t> in_cell_, in_row_;        // segments of each cell, of each row of cells
  std::vector<int64_t> filled_;                  // summed-area table (rows + 1, cols + 1) of cells with segments
  std::vector<uint8_t> inside_;                  // of cells without segments: whether they are in the area
};

// counts (n,) gets how many pixels of each window have a value v with wanted[v]; pixels outside the mask do not count.
//   mask    (rows, cols)
//   wanted  256 of 0 or 1
// One pass over the rows of the mask that some window meets, with a running sum per row.
void count_in_windows(const uint8_t* mask, int64_t rows, int64_t cols, const uint8_t* wanted, const int64_t* windows,
                      int64_t n, int64_t* counts, int threads);

}  // namespace rvk
