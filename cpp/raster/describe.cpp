#include "raster/describe.h"

#include "parallel.h"
#include "raster/archive.h"

namespace rvk {

Description describe(GDALDataset& dataset, const std::string& path) {
  Description d;
  if (GDALDriver* driver = dataset.GetDriver()) d.driver = driver->GetDescription();
  d.rows = dataset.GetRasterYSize();
  d.cols = dataset.GetRasterXSize();
  const Bands bands = bands_of(dataset);
  d.bands = static_cast<int64_t>(bands.imagery.size());
  d.alpha = bands.alpha != 0;
  const GDALDataType type = common_type(dataset);
  d.dtype = type_name(type);
  if (d.dtype.empty())
    throw std::invalid_argument(path + ": pixels are " + GDALGetDataTypeName(type) +
                                "; expected 8-, 16- or 32-bit integers or floats; convert it with gdal_translate -ot");
  if (const char* wkt = dataset.GetProjectionRef()) d.crs = wkt;
  double transform[6];
  if (dataset.GetGeoTransform(transform) == CE_None) std::copy(transform, transform + 6, d.transform.begin());
  GDALRasterBand* band = dataset.GetRasterBand(bands.imagery.front());
  int has_nodata = FALSE;
  const double nodata = band->GetNoDataValue(&has_nodata);
  if (has_nodata) d.nodata = nodata;
  const int flags = band->GetMaskFlags();
  d.mask = (flags & GMF_PER_DATASET) && !(flags & GMF_ALPHA);
  int block_cols = 0, block_rows = 0;
  band->GetBlockSize(&block_cols, &block_rows);
  d.block_rows = block_rows;
  d.block_cols = block_cols;
  if (const GDALColorTable* table = band->GetColorTable())
    for (int i = 0; i < table->GetColorEntryCount(); ++i) {
      GDALColorEntry entry;
      table->GetColorEntryAsRGB(i, &entry);
      d.palette.push_back({entry.c1, entry.c2, entry.c3, entry.c4});
    }
  return d;
}

std::vector<Description> describe_many(const std::vector<std::string>& paths, int threads) {
  std::vector<Description> all(paths.size());
  Archives archives;
  parallel(static_cast<int64_t>(paths.size()), threads, [&](int64_t begin, int64_t end) {
    Quiet quiet;
    for (int64_t i = begin; i < end; ++i) all[i] = describe(*archives.open(paths[i], quiet), paths[i]);
  });
  return all;
}

}  // namespace rvk
