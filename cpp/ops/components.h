// Connected regions of equal value in a raster of labels.
//
// Two pixels are connected when they hold the same value and are neighbours: of the 4 that share an edge, or of the 8
// that share an edge or a corner. Pixels of the background value belong to no region. Regions are numbered in the order
// of their first pixels, row by row from the left; those of fewer than min_area pixels are left out of the numbering.
//
// Work is done on runs, the longest stretches of one value within a row (L. He, Y. Chao, K. Suzuki: A run-based
// two-scan labeling algorithm, IEEE Transactions on Image Processing 17, 2008): a scene has a hundredth as many runs as
// pixels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace rvk {

constexpr int64_t kMostSide = std::numeric_limits<int32_t>::max() - 1;  // rows and columns of a raster of labels

// A raster in row order. When has_background, pixels of the value `background` belong to no region.
template <typename T>
struct LabelRaster {
  const T* data;
  int64_t rows, cols;  // each at most kMostSide
  bool has_background;
  T background;
};

struct RegionRules {
  bool diagonal = false;  // 8 neighbours instead of 4
  int64_t min_area = 1;   // pixels
  // More pieces than this are refused (std::length_error), so that numbers fit in 32 bits. A piece is what the scan
  // from the top takes for a region before it meets where pieces join.
  int64_t most_pieces = std::numeric_limits<int32_t>::max();
};

struct RegionStatistics {
  int64_t area = 0;                  // pixels
  int64_t row_sum = 0, col_sum = 0;  // over its pixels
  int32_t top = std::numeric_limits<int32_t>::max(), left = top;
  int32_t bottom = 0, right = 0;  // exclusive
  int32_t first = 0;              // column of its first pixel, which is in row `top`

  // Take in pixels that come after those that are counted.
  void add(const RegionStatistics& later);
};

constexpr int32_t kNoRegion = -1;

// Runs of all rows in raster order, without those of the background.
struct Regions {
  int64_t rows = 0, cols = 0;
  std::vector<int64_t> row_start;  // rows + 1: row r holds runs [row_start[r], row_start[r + 1])
  std::vector<int32_t> x;          // run k covers columns [x[2 k], x[2 k + 1])
  std::vector<int32_t> region;     // of each run, from 0, or kNoRegion when it is smaller than min_area
  int32_t count = 0;
};

struct Numbered {
  int32_t count = 0;
  std::vector<RegionStatistics> statistics;  // of each region, or none
};

// Rows of a piece of work: about a million pixels, so that a chip is one piece.
inline int64_t rows_per_strip(int64_t cols) {
  return std::max<int64_t>(1, (int64_t{1} << 20) / std::max<int64_t>(1, cols));
}

// Calls f(a, b) for every pair of a run a of one row and a run b of the row below that share a column, or, with
// reach = 1, at least a corner; b ascending, for each b a ascending. `above` and `below` point at begin and end
// columns.
template <typename F>
inline void for_touching(const int32_t* above, int64_t n_above, const int32_t* below, int64_t n_below, int32_t reach,
                         F&& f) {
  int64_t first = 0;
  for (int64_t b = 0; b < n_below; ++b) {
    const int32_t begin = below[2 * b] - reach;
    const int32_t end = below[2 * b + 1] + reach;
    while (first < n_above && above[2 * first + 1] <= begin) ++first;
    for (int64_t a = first; a < n_above && above[2 * a] < end; ++a) f(a, b);
  }
}

// T is uint8_t or int32_t.
template <typename T>
Regions find_regions(const LabelRaster<T>& labels, const RegionRules& rules, int threads);

// out (rows, cols): number of the region + 1, or 0. Where a raster is so rich in runs that keeping them costs more than
// finding them again, `out` holds on the way what is known of them.
template <typename T>
Numbered number_regions(const LabelRaster<T>& labels, const RegionRules& rules, bool statistics, int32_t* out,
                        int threads);

}  // namespace rvk
