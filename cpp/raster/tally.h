// Statistics of rasters, taken from the decoded blocks without copying pixels together.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/statistics.h"
#include "raster/tile.h"

namespace rvk {

struct Tallied {
  int64_t pixels;  // of the windows, inside the raster
  int64_t blocks;  // decoded
};

// totals  grow by the pixels of windows (n, 4), those without data left out; what lies outside the raster is no pixel
// type    GDT_Byte, GDT_UInt16, GDT_Int16 or GDT_Float32: what the totals are for
// The rest, and the errors, are as in Stack::visit.
Tallied tally(Stack& stack, const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type,
              const Totals& totals, int threads);

}  // namespace rvk
