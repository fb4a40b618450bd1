// One raster of a stack: what windows want of it, decoded piece by piece on several threads.
//
// GeoTIFF is decoded by raster/tiff.h where that can; everything else, and every block that it cannot decode, is asked
// of GDAL, so that both give the same pixels and the same errors.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "raster/cache.h"
#include "raster/describe.h"
#include "raster/pixels.h"
#include "raster/pool.h"
#include "raster/tiff.h"

namespace rvk {

// What is wanted of a raster, as pixels of `type` (uint8, uint16, int16 or float32).
struct Selection {
  GDALDataType type = GDT_Byte;
  std::vector<int> channels;     // GDAL's band numbers; the alpha band last when it is needed
  size_t imagery = 0;            // how many of them are not alpha
  std::vector<double> nodata;    // per imagery channel, as a value of `type`
  std::vector<char> has_nodata;  // per imagery channel
  bool values = false;           // whether values say what is data
  bool alpha = false, mask = false;
};

// Blocks of one call or more.
struct Counts {
  std::atomic<int64_t> decoded{0};  // by us or GDAL
  std::atomic<int64_t> by_gdal{0};  // of these, by GDAL
  std::atomic<int64_t> cached{0};   // taken from the cache instead
};

class Layer {
 public:
  // Its overview `level`, from 0, or kFull: the raster itself. The cache may be null. Without `direct` GDAL decodes
  // everything. Throws as open().
  Layer(std::string path, bool direct, std::shared_ptr<BlockCache> cache, int level = kFull);
  ~Layer();

  std::unique_ptr<Layer> overview(int level) const { return std::make_unique<Layer>(path_, direct_, cache_, level); }

  const std::string& path() const { return path_; }
  const Description& description() const { return description_; }

  // Imagery bands from 0, and where there is data if `valid`.
  Selection select(const std::vector<int>& bands, GDALDataType type, bool valid);

  // What is decoded at once: whole blocks, joined until there are about 64 Ki pixels if they are strips.
  int64_t piece_rows() const { return piece_rows_; }
  int64_t piece_cols() const { return piece_cols_; }

  // Calls use(pixels, piece, worker) once for each piece of `visits`, which are of piece_rows() x piece_cols(), in any
  // order and on `threads` threads; two calls with the same worker, from 0 on, never overlap. pixels.at is
  // visits.need(piece); its channels are `wanted`'s. Throws std::invalid_argument naming the file when a block cannot
  // be decoded, and what `use` throws.
  void decode(const Visits& visits, const Selection& wanted, int threads, Counts& counts, const Use& use);

 private:
  struct Worker;

  Dataset open_file(Quiet& quiet) const;
  GDALDataset& dataset(Worker& worker, Quiet& quiet);
  void decode_gdal(Worker& worker, Quiet& quiet, const Rect& need, const Selection& wanted, Counts& counts);
  void find(Worker& worker, const Visits& visits, int64_t begin, int64_t end, const Selection& wanted, bool keep);
  bool decode_tiff(Worker& worker, const Rect& piece, const Rect& need, size_t number, const Selection& wanted,
                   bool keep, Counts& counts);
  void mark(Worker& worker, Quiet& quiet, const Rect& need, const Selection& wanted);
  int64_t work(const Visits& visits, const Selection& wanted, int64_t tasks) const;
  BlockCache::Key key(const Rect& piece, int64_t plane) const;

  std::string path_;
  bool direct_;
  std::shared_ptr<BlockCache> cache_;
  int id_, level_;
  Description description_;
  Bands bands_;
  GDALDataType native_ = GDT_Unknown;
  int64_t piece_rows_ = 0, piece_cols_ = 0;
  std::unique_ptr<Tiff> tiff_;  // null: GDAL decodes

  std::unique_ptr<Pool<Worker>> workers_;
};

}  // namespace rvk
