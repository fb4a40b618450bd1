// Rasters on other grids: another pixel size, another CRS, or windows stretched to one size.
//
// A grid's pixel (row, col) covers [row, row + 1) x [col, col + 1); its transform takes (col, row) corners to its CRS.
// Output pixel (i, j) of a window (row, col, rows, cols) read at (out_rows, out_cols) covers grid rows
// row + i rows / out_rows to row + (i + 1) rows / out_rows, columns alike. Bands are masked each by its own nodata, all
// by alpha or mask, and kernels widened by the ratio of pixel sizes.
//
// Where the grids share a CRS and their axes are parallel, nearest, bilinear and average are raster/resample.h, out of
// blocks that are decoded and cached as for other reads. Everything else is what GDAL's warper gives with an exact
// transformer (no approximation; XSCALE and YSCALE constant per raster and window size); between grids of one CRS that
// is the affine map from pixels to pixels, which involves no coordinates of the CRS. Either way a pixel depends neither
// on the other windows nor on threads.
#pragma once

#include <gdalwarper.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "raster/describe.h"
#include "raster/layer.h"
#include "raster/pixels.h"

namespace rvk {

struct Grid {
  int64_t rows = 0, cols = 0;
  std::array<double, 6> transform{{0, 1, 0, 0, 0, 1}};  // GDAL's order
  std::string crs;                                      // WKT; empty when there is none
};

Grid grid_of(const Description& d);

// How another grid differs from `grid`, for an error; empty when their pixels coincide.
std::string difference(const Grid& grid, const Grid& other);

// Whether the raster says where it lies. Without a CRS a transform of its own is enough.
bool georeferenced(const Description& d);

// The rows and columns of an output window whose pixels have their centres on the grid.
Rect on_grid(const int64_t* window, int64_t out_rows, int64_t out_cols, const Grid& grid);

// One raster seen on a grid.
class Regridded {
 public:
  // Throws std::invalid_argument naming the path when the raster cannot be placed on the grid, or nowhere meets it.
  // Overviews serve every method but nearest neighbour: the coarsest whose pixels are at most 1 % larger than wanted.
  Regridded(Layer& layer, const Grid& grid, GDALResampleAlg method);
  ~Regridded();

  // What of the grid is made at once.
  static constexpr int64_t kPiece = 512;

  // As Layer::decode, for pieces of kPiece x kPiece pixels of the grid. Pixels that no valid pixel of the raster
  // reaches are `fill` and not valid; floats are not either where all bands are NaN.
  //   bands  imagery bands from 0
  void decode(const Visits& visits, const std::vector<int>& bands, GDALDataType type, double fill, int threads,
              Counts& counts, const Use& use) const;

  // Windows `which` (of windows (n, 4)), each to rows x cols. Calls use(pixels, window, worker) with pixels.at being
  // on_grid(window), in pixels of the output; not for windows of which nothing lies on the grid.
  void stretch(const int64_t* windows, std::vector<int64_t> which, int64_t rows, int64_t cols,
               const std::vector<int>& bands, GDALDataType type, double fill, int threads, Counts& counts,
               const Use& use) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rvk
