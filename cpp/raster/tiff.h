// Pixels out of GeoTIFF and COG without libtiff: the directory is read once, blocks are decoded straight into memory
// that stays in cache.
//
// What remote sensing uses is here: classic and BigTIFF of either byte order, strips and tiles, pixel- and
// band-interleaved, integers and floats of 8, 16, 32 and 64 bits; uncompressed, LZW, and DEFLATE and ZSTD where their
// libraries were there at build time; predictors 1, 2 and 3. Everything else is left to GDAL: Tiff::open says no.
#pragma once

#include <gdal_priv.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "raster/buffer.h"
#include "raster/file.h"
#include "raster/visits.h"

namespace rvk {

class Tiff {
 public:
  // The image of the file that `dataset` shows: the first directory of its size. Null when the file is no TIFF, its
  // directory is damaged, or something in it is not of the above.
  static std::unique_ptr<Tiff> open(const std::string& path, GDALDataset& dataset);

  // Names of the compressions of this build, "none" first.
  static std::vector<std::string> codecs();

  // Bands that are decoded together: all (1 plane), or each by itself (as many planes as bands).
  int64_t planes() const { return planes_; }
  int64_t samples() const { return samples_; }  // bands per plane
  int64_t value_bytes() const { return bytes_; }
  bool compressed() const { return compression_ != 1; }
  // How a reader does well to divide the image: one tile, or so many strips that there are about 64 Ki pixels.
  int64_t piece_rows() const { return piece_rows_; }
  int64_t piece_cols() const { return piece_cols_; }

  // The pixels that have to be decoded to have `need`, which lies in one piece: whole tiles, also beyond the image's
  // edge, whole strips, and of uncompressed ones whole rows or the columns needed.
  Rect covering(const Rect& need) const;
  // Blocks of one plane in it.
  int64_t blocks_in(const Rect& covering) const;

  // One thread's decoder.
  class Reader {
   public:
    explicit Reader(Tiff& tiff);
    ~Reader();

    // What decode() will be asked for next: their bytes are read at once where they lie together. Bounded: at most
    // kAhead bytes, or those of one rectangle.
    struct Wanted {
      Rect covering;
      int64_t plane;
    };
    void announce(const std::vector<Wanted>& wanted);

    // A rectangle that covering() gave, of one plane, to (rows, cols, samples) values at `to`, which has Buffer::kSlack
    // bytes of room behind them. Blocks that the file does not hold are nodata, or 0. False when a
    // block is damaged or unusual: GDAL is to decode it, or to say what is wrong.
    bool decode(const Rect& covering, int64_t plane, uint8_t* to);

   private:
    static constexpr size_t kAhead = size_t{8} << 20;
    struct Codecs;

    bool decode_block(int64_t index, int64_t rows, int64_t cols, uint8_t* to);
    bool read_rows(const Rect& covering, int64_t plane, uint8_t* to);
    void blocks(const Rect& covering, int64_t plane, int64_t& first, int64_t& count) const;

    Tiff& tiff_;
    std::unique_ptr<Codecs> codecs_;
    Buffer ahead_, single_, scratch_;
    uint64_t ahead_begin_ = 0, ahead_end_ = 0;  // the part of the file in ahead_
  };

 private:
  Tiff() = default;
  bool read_directory(GDALDataset& dataset);
  bool accept(GDALDataset& dataset);
  void fill(uint8_t* to, int64_t pixels, int64_t plane) const;

  int64_t row_bytes() const { return block_cols_ * samples_ * bytes_; }

  std::unique_ptr<File> file_;
  bool swapped_ = false;  // the file's byte order is not this machine's
  bool tiled_ = false;
  int64_t rows_ = 0, cols_ = 0, samples_ = 0, planes_ = 1, bytes_ = 0;
  int64_t block_rows_ = 0, block_cols_ = 0, across_ = 0, down_ = 0, piece_rows_ = 0, piece_cols_ = 0;
  int compression_ = 1, predictor_ = 1;
  std::vector<uint64_t> offsets_, sizes_;  // of blocks, plane by plane
  std::vector<uint8_t> empty_;             // the pixel, over all bands, of blocks that are not there
};

}  // namespace rvk
