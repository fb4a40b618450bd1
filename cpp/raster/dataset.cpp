#include "raster/dataset.h"

#include <cpl_conv.h>
#include <cpl_error.h>
#include <cpl_vsi.h>

namespace rvk {

namespace {
constexpr const char* kJpegWarnings = "GDAL_ERROR_ON_LIBJPEG_WARNING";
}

Quiet::Quiet() {
  const char* before = CPLGetThreadLocalConfigOption(kJpegWarnings, nullptr);
  jpeg_was_set_ = before != nullptr;
  if (before) jpeg_before_ = before;
  CPLSetThreadLocalConfigOption(kJpegWarnings, "YES");
  CPLPushErrorHandlerEx(&Quiet::keep, this);
}

Quiet::~Quiet() {
  CPLPopErrorHandler();
  CPLErrorReset();
  CPLSetThreadLocalConfigOption(kJpegWarnings, jpeg_was_set_ ? jpeg_before_.c_str() : nullptr);
}

void CPL_STDCALL Quiet::keep(CPLErr level, CPLErrorNum, const char* text) {
  auto* self = static_cast<Quiet*>(CPLGetErrorHandlerUserData());
  if (level < CE_Failure || !self->error_.empty()) return;
  self->error_ = text ? text : "";
  for (char& c : self->error_)
    if (c == '\n' || c == '\r') c = ' ';
}

Dataset open(const std::string& path, Quiet& quiet, const char* const* siblings, const char* const* options) {
  quiet.clear();
  Dataset dataset(static_cast<GDALDataset*>(
      GDALOpenEx(path.c_str(), GDAL_OF_RASTER | GDAL_OF_READONLY | GDAL_OF_VERBOSE_ERROR, nullptr, options, siblings)));
  if (dataset && dataset->GetRasterCount() > 0) return dataset;
  const std::string reason = dataset ? "it has no raster bands" : quiet.error();
  VSIStatBufL stat;
  if (VSIStatExL(path.c_str(), &stat, VSI_STAT_EXISTS_FLAG) != 0) throw Missing(path + ": no such file");
  throw std::invalid_argument(path + ": not a raster GDAL can open: " + reason);
}

Dataset open_level(const std::string& path, int level, Quiet& quiet) {
  if (level == kFull) return open(path, quiet);
  const std::string option = "OVERVIEW_LEVEL=" + std::to_string(level);
  const char* const options[] = {option.c_str(), nullptr};
  return open(path, quiet, nullptr, options);
}

std::string type_name(GDALDataType type) {
  switch (type) {
    case GDT_Byte:
      return "uint8";
    case GDT_UInt16:
      return "uint16";
    case GDT_Int16:
      return "int16";
    case GDT_UInt32:
      return "uint32";
    case GDT_Int32:
      return "int32";
    case GDT_Float32:
      return "float32";
    case GDT_Float64:
      return "float64";
    default:
      return "";
  }
}

GDALDataType common_type(GDALDataset& dataset) {
  GDALDataType type = dataset.GetRasterBand(1)->GetRasterDataType();
  for (int b = 2; b <= dataset.GetRasterCount(); ++b)
    type = GDALDataTypeUnion(type, dataset.GetRasterBand(b)->GetRasterDataType());
  return type;
}

Bands bands_of(GDALDataset& dataset) {
  Bands bands;
  for (int b = 1; b <= dataset.GetRasterCount(); ++b) {
    if (dataset.GetRasterBand(b)->GetColorInterpretation() == GCI_AlphaBand)
      bands.alpha = b;
    else
      bands.imagery.push_back(b);
  }
  if (bands.imagery.empty()) {  // an alpha band alone is a mask file: its values are the imagery
    bands.imagery.push_back(bands.alpha);
    bands.alpha = 0;
  }
  return bands;
}

}  // namespace rvk
