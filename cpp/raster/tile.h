// Windows out of rasters, every compressed block decoded once per call.
//
// The loop runs over blocks, not over windows: the blocks that some window touches are visited in file order, each by
// one thread, decoded into that thread's buffer and copied into all windows it meets. So the order of the windows does
// not matter, and overlapping windows cost only the copy. Formats without random access (JPEG, PNG, GIF, WebP) are read
// by one thread from top to bottom. A VRT is read in squares of 512 pixels, since it does not say how its sources are
// blocked.
//
// Memory, beside GDAL's own cache: per thread one piece (a tile, or as many strips as make 64 Ki pixels, at least one),
// decoded, compressed (up to 8 MiB when several lie together), and converted if another type is asked for; and decoded
// blocks that a later call may want, up to Options::cache_bytes, the longest unused forgotten first. A call that
// decodes more than that leaves them alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "raster/grid.h"
#include "raster/layer.h"

namespace rvk {

// Pixels that lie in one window and are decoded together. Value (r, c) of the b-th wanted band is
// static_cast<const T*>(bands[b])[r * row_step + c * pixel_step]: steps are in values, and when the bands lie side by
// side, bands[b] = bands[0] + b.
struct Part {
  int64_t window;                // index
  int64_t row, col, rows, cols;  // in the raster
  const void* const* bands;      // as many as asked for, in that order
  int64_t pixel_step, row_step;
  const uint8_t* valid;  // 1 where there is data, else 0; null when all of it is
  int64_t valid_row_step;
};

enum class Layout { nhwc, nchw };

// Rasters whose imagery bands are stacked in order, on one grid: the first one's unless another is given. Rasters on
// another grid, and windows of another size than their output, are resampled (raster/grid.h).
class Stack {
 public:
  struct Options {
    size_t cache_bytes = size_t{128} << 20;
    bool direct = true;  // decode GeoTIFF without GDAL where possible; the pixels are the same
    std::optional<Grid> grid;
    GDALResampleAlg method = GRA_Bilinear;
  };

  // Opens each once. Throws std::invalid_argument naming both files when sizes, transforms or CRS differ and not all
  // say where they lie, or naming one that is nowhere on the grid.
  Stack(const std::vector<std::string>& paths, const Options& options);
  ~Stack();

  const Grid& grid() const { return grid_; }
  int64_t rows() const { return grid_.rows; }
  int64_t cols() const { return grid_.cols; }
  int64_t bands() const;
  const std::vector<Description>& descriptions() const { return descriptions_; }
  // The smallest GDAL type that holds all of them.
  GDALDataType type() const;

  // windows  (n, 4): row, col, rows, cols; may lie outside the grid in part or whole. One of another size than (rows,
  //          cols) is resampled to it
  // bands    indices from 0 into the stacked bands, in the order wanted
  // out      (n, rows, cols, bands) or (n, bands, rows, cols) of `type`, as `layout` says; `fill` where a window leaves
  //          the grid, and where a resampled raster has no data
  // valid    (n, rows, cols) or null: 1 where every raster has data, else 0. No data: outside the grid, alpha or mask
  //          of 0, or every selected band of a raster holding nodata (or NaN, for floats)
  // Returns the number of blocks decoded, summed over the rasters without those that are resampled. Throws
  // std::invalid_argument naming the file when a block cannot be decoded.
  int64_t read(const int64_t* windows, int64_t n, int64_t rows, int64_t cols, const std::vector<int>& bands,
               GDALDataType type, void* out, double fill, uint8_t* valid, int threads, Layout layout = Layout::nhwc);

  // What read would give, without copying it together: calls f(part, worker) for each part of a window that is decoded
  // at once, from several threads; calls with the same worker (from 0, below `threads`) never overlap, so that f can
  // add to one accumulator per worker. What lies outside the raster is in no part, each other pixel of a window in
  // exactly one. `windows` (n, 4) may differ in size; windows that overlap get their pixels each. A part lives until f
  // returns. Returns the number of blocks decoded; errors as read, and what f throws.
  using Visitor = std::function<void(const Part& part, int worker)>;
  int64_t visit(const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type, int threads,
                const Visitor& f);

  // Of all calls so far.
  const Counts& counts() const { return counts_; }

 private:
  int64_t visit_copies(const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type, int threads,
                       const Visitor& f);
  int64_t count(const Counts& counts);
  const Regridded& regridded(size_t layer);

  std::shared_ptr<BlockCache> cache_;  // null: none
  std::vector<Description> descriptions_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<char> elsewhere_;  // which layers are on another grid than the stack's
  Grid grid_;
  GDALResampleAlg method_;
  std::mutex lock_;
  std::vector<std::unique_ptr<Regridded>> regridded_;  // per layer; made when first needed
  Counts counts_;
};

// Whole images of one size. The first decides (rows, cols, bands, type); `open` it to allocate, then `read` all.
class Many {
 public:
  explicit Many(const std::vector<std::string>& paths);
  ~Many();
  int64_t size() const { return static_cast<int64_t>(paths_.size()); }
  const Description& first() const { return first_; }
  // out (n, rows, cols, bands) of the first image's type.
  void read(void* out, int threads);

 private:
  std::vector<std::string> paths_;
  Description first_;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rvk
