// Opening rasters: one owner per handle, errors of a thread kept as text, nothing printed.
#pragma once

#include <gdal_priv.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace rvk {

// A path that does not exist. Everything else that is wrong with a file is std::invalid_argument.
struct Missing : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// While it lives, what GDAL reports on this thread is kept here instead of printed, and damage that libjpeg only warns
// of (a truncated scan decodes to grey) is an error. GDAL's handler stack is per thread, so each thread makes its own.
class Quiet {
 public:
  Quiet();
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

  // The first error since the last clear(), on one line; empty when there was none.
  const std::string& error() const { return error_; }
  void clear() { error_.clear(); }

 private:
  static void CPL_STDCALL keep(CPLErr level, CPLErrorNum number, const char* text);

  std::string error_;
  std::string jpeg_before_;
  bool jpeg_was_set_;
};

struct CloseDataset {
  void operator()(GDALDataset* dataset) const { GDALClose(dataset); }
};
using Dataset = std::unique_ptr<GDALDataset, CloseDataset>;

// Open for reading. `siblings` (may be null: GDAL lists the folder) names the files beside it that may be its sidecars.
// `options` are GDAL's open options.
// Throws Missing, or std::invalid_argument naming the path and GDAL's reason.
Dataset open(const std::string& path, Quiet& quiet, const char* const* siblings = nullptr,
             const char* const* options = nullptr);

// Its overview `level`, from 0, or the raster itself.
constexpr int kFull = -1;
Dataset open_level(const std::string& path, int level, Quiet& quiet);

// f(T{}) for the C++ type of pixels as they are handed out: uint8, uint16, int16 or float32.
template <typename F>
void with_type(GDALDataType type, F&& f) {
  if (type == GDT_Byte) f(uint8_t{});
  if (type == GDT_UInt16) f(uint16_t{});
  if (type == GDT_Int16) f(int16_t{});
  if (type == GDT_Float32) f(float{});
}

// "uint8", "float32", ...; empty for types that are no pixel of ours (complex, 64-bit integers).
std::string type_name(GDALDataType type);

// The smallest of GDAL's types that holds every band of the dataset.
GDALDataType common_type(GDALDataset& dataset);

// Bands (from 1) that are imagery, and the alpha band or 0.
struct Bands {
  std::vector<int> imagery;
  int alpha = 0;
};
Bands bands_of(GDALDataset& dataset);

}  // namespace rvk
