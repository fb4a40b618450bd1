// Polygons along the pixel edges of every connected region of a raster of labels, with their holes.
//
// Regions are those of components.h and keep their order. Corners are (x, y) = (column, row), and through a transform t
// (t0 + x t1 + y t2, t3 + x t4 + y t5), each sum from the left.
//
// A ring runs with its region on the left as seen on the raster (rows from top to bottom): outer rings anticlockwise,
// holes clockwise, as RFC 7946 wants them on a map with north up. It has no vertex within a straight line, ends with
// its first vertex, and begins where its topmost, then leftmost, edge ends. The outer ring of a region comes first,
// then its holes in the order of those edges.
//
// Where two pixels of a region meet at a corner between two that are not of it, rings go from one to the other, as
// GDAL's do. Rings of 4-connected regions then never meet themselves: every polygon is valid. An 8-connected region
// that hangs together by a corner only has a ring that touches itself there.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/components.h"

namespace rvk {

class Polygonizer {
 public:
  // Finds the rings. T is uint8_t or int32_t. std::length_error also for more runs than half of rules.most_pieces: both
  // sides of every run have a number.
  template <typename T>
  Polygonizer(const LabelRaster<T>& labels, const RegionRules& rules, int threads);

  int64_t points() const { return ring_start_.back(); }
  // Ring r has points [ring_start()[r], ring_start()[r + 1]), polygon p has rings [polygon_start()[p],
  // polygon_start()[p + 1]).
  const std::vector<int64_t>& ring_start() const { return ring_start_; }
  const std::vector<int64_t>& polygon_start() const { return polygon_start_; }
  // Position in the raster, row * cols + column, of the first pixel of each polygon.
  const std::vector<int64_t>& first_pixel() const { return first_pixel_; }

  // The points of all rings, (points, 2): corners, or corners through a transform of six numbers.
  void write(int32_t* coords, int threads) const;
  void write(const double* transform, double* coords, int threads) const;

 private:
  // Side 2 k is the left one of run k, side 2 k + 1 its right one. Clockwise around a region left sides are walked
  // upwards and right sides downwards; next_ holds the side that follows, or, where the walk turns from up to down, the
  // chain that begins there as -1 - chain.
  struct Chain {
    int32_t up, down;  // the sides on which the walk came up and on which it goes down
    int32_t row;       // of both sides; the turn is on the upper edge of it
    int32_t next;      // the chain that follows
    int64_t points;    // of this chain
    int64_t position;  // of its first point in the output; the others stand before it, since output runs anticlockwise
  };

  void link(int threads);
  void find_chains(int threads);
  void join_chains();
  template <typename F>
  int32_t walk(const Chain& chain, F&& corner) const;
  template <typename T, typename F>
  void write_points(T* coords, int threads, F&& point) const;

  Regions regions_;
  std::vector<int32_t> next_;
  std::vector<Chain> chains_;
  std::vector<int64_t> ring_start_{0}, polygon_start_{0}, first_pixel_;
};

}  // namespace rvk
