// What a raster file says of itself.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "raster/dataset.h"

namespace rvk {

struct Description {
  std::string driver;
  int64_t rows = 0, cols = 0;
  int64_t bands = 0;                                    // without alpha
  std::string dtype;                                    // the smallest type that holds every band
  std::string crs;                                      // WKT; empty when there is none
  std::array<double, 6> transform{{0, 1, 0, 0, 0, 1}};  // GDAL's order; pixel corners to CRS
  std::optional<double> nodata;                         // of the first band
  bool alpha = false;
  bool mask = false;  // a mask band or .msk file, apart from alpha and nodata
  int64_t block_rows = 0, block_cols = 0;
  std::vector<std::array<int, 4>> palette;  // red, green, blue, alpha of each value; empty without a colour table
};

// Throws std::invalid_argument naming `path` for pixels of a type that is not supported.
Description describe(GDALDataset& dataset, const std::string& path);

// In the order of `paths`, opened by several threads (0 = all). The first error ends it.
std::vector<Description> describe_many(const std::vector<std::string>& paths, int threads);

}  // namespace rvk
