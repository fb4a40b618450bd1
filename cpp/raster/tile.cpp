#include "raster/tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>

#include "parallel.h"
#include "raster/archive.h"
#include "raster/layer.h"
#include "raster/visits.h"

namespace rvk {

namespace {

GDALDataType type_of(const Description& d) {
  return GDALGetDataTypeByName(d.dtype == "uint8" ? "Byte" : d.dtype.c_str());
}

// Outputs larger than this are written past the caches.
constexpr int64_t kStreamed = int64_t{16} << 20;

template <typename T>
void fill_all(void* out, int64_t count, double value) {
  std::fill_n(static_cast<T*>(out), count, static_cast<T>(value));
}

}  // namespace

Stack::Stack(const std::vector<std::string>& paths, const Options& options) : method_(options.method) {
  if (paths.empty()) throw std::invalid_argument("images: expected at least one path, got none");
  if (options.cache_bytes > 0) cache_ = std::make_shared<BlockCache>(options.cache_bytes);
  for (const auto& path : paths) {
    layers_.push_back(std::make_unique<Layer>(path, options.direct, cache_));
    descriptions_.push_back(layers_.back()->description());
    const Description &a = descriptions_.front(), &b = descriptions_.back();
    const std::string differs = difference(grid_of(a), grid_of(b));
    if (!differs.empty() && !(georeferenced(a) && georeferenced(b) && a.crs.empty() == b.crs.empty()))
      throw std::invalid_argument(path + ": " + differs + " than " + paths.front() +
                                  "; images of one scene must share a grid, or all say where they lie");
  }
  grid_ = options.grid ? *options.grid : grid_of(descriptions_.front());
  regridded_.resize(layers_.size());
  for (size_t l = 0; l < layers_.size(); ++l) {
    elsewhere_.push_back(!difference(grid_, grid_of(descriptions_[l])).empty());
    if (elsewhere_[l]) regridded(l);
  }
}

const Regridded& Stack::regridded(size_t l) {
  const std::lock_guard<std::mutex> hold(lock_);
  if (!regridded_[l]) regridded_[l] = std::make_unique<Regridded>(*layers_[l], grid_, method_);
  return *regridded_[l];
}

int64_t Stack::count(const Counts& counts) {
  counts_.decoded += counts.decoded;
  counts_.by_gdal += counts.by_gdal;
  counts_.cached += counts.cached;
  return counts.decoded;
}

Stack::~Stack() {
  Quiet quiet;
  regridded_.clear();
  layers_.clear();
}

int64_t Stack::bands() const {
  int64_t bands = 0;
  for (const auto& d : descriptions_) bands += d.bands;
  return bands;
}

GDALDataType Stack::type() const {
  GDALDataType type = type_of(descriptions_.front());
  for (const auto& d : descriptions_) type = GDALDataTypeUnion(type, type_of(d));
  return type;
}

int64_t Stack::read(const int64_t* windows, int64_t n, int64_t rows, int64_t cols, const std::vector<int>& bands,
                    GDALDataType type, void* out, double fill, uint8_t* valid, int threads, Layout layout) {
  const int64_t size = GDALGetDataTypeSizeBytes(type);
  const auto out_bands = static_cast<int64_t>(bands.size());
  const int64_t window_values = rows * cols * out_bands;
  const int64_t height = this->rows(), width = this->cols();
  auto* const pixels_out = static_cast<uint8_t*>(out);

  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Rect part = on_grid(windows + 4 * i, rows, cols, grid_);
          if (part.row0 == 0 && part.col0 == 0 && part.row1 == rows && part.col1 == cols) continue;
          if (valid) std::memset(valid + i * rows * cols, 0, static_cast<size_t>(rows * cols));
          void* first = pixels_out + i * window_values * size;
          if (type == GDT_Byte) fill_all<uint8_t>(first, window_values, fill);
          if (type == GDT_UInt16) fill_all<uint16_t>(first, window_values, fill);
          if (type == GDT_Int16) fill_all<int16_t>(first, window_values, fill);
          if (type == GDT_Float32) fill_all<float>(first, window_values, fill);
        }
      },
      64);

  // Output that no cache holds is written past them: what is decoded then stays there.
  const bool stream = n * window_values * size > kStreamed;
  const int64_t band_step = layout == Layout::nhwc ? 1 : rows * cols;
  const int64_t pixel_step = layout == Layout::nhwc ? out_bands : 1, row_step = pixel_step * cols;
  std::vector<int64_t> plain, stretched;
  for (int64_t i = 0; i < n; ++i)
    (windows[4 * i + 2] == rows && windows[4 * i + 3] == cols ? plain : stretched).push_back(i);
  Counts counts;
  int first_band = 0;
  bool first = true;  // of the rasters that are read: it sets `valid`, the others clear in it
  for (size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = *layers_[l];
    const int layer_bands = static_cast<int>(descriptions_[l].bands);
    std::vector<int> own;
    std::vector<int64_t> offsets;
    for (int64_t b = 0; b < out_bands; ++b) {
      if (bands[b] < first_band || bands[b] >= first_band + layer_bands) continue;
      own.push_back(bands[b] - first_band);
      offsets.push_back(b * band_step);
    }
    first_band += layer_bands;
    if (own.empty()) continue;
    // `part` of the pixels to row `row`, column `col` of window i.
    const auto put = [&](const Pixels& pixels, const PixelCopy& copy, const Rect& part, int64_t i, int64_t row,
                         int64_t col) {
      copy(part, pixels_out + (i * window_values + row * row_step + col * pixel_step) * size);
      if (valid) copy_valid(pixels, part, first, valid + (i * rows + row) * cols + col, cols, stream);
    };
    if (!plain.empty()) {
      const int64_t piece_rows = elsewhere_[l] ? Regridded::kPiece : layer.piece_rows();
      const int64_t piece_cols = elsewhere_[l] ? Regridded::kPiece : layer.piece_cols();
      const Visits visits(windows, plain, height, width, piece_rows, piece_cols);
      const Use use = [&](const Pixels& pixels, int64_t piece, int) {
        const PixelCopy copy(pixels, static_cast<int>(size), offsets, pixel_step, row_step, stream);
        visits.each(piece, [&](int64_t i, const Rect& part) {
          put(pixels, copy, part, i, part.row0 - windows[4 * i], part.col0 - windows[4 * i + 1]);
        });
        if (stream) stream_fence();
      };
      if (elsewhere_[l])
        regridded(l).decode(visits, own, type, fill, threads, counts, use);
      else
        layer.decode(visits, layer.select(own, type, valid != nullptr), threads, counts, use);
    }
    if (!stretched.empty())
      regridded(l).stretch(
          windows, stretched, rows, cols, own, type, fill, threads, counts, [&](const Pixels& pixels, int64_t i, int) {
            const PixelCopy copy(pixels, static_cast<int>(size), offsets, pixel_step, row_step, stream);
            put(pixels, copy, pixels.at, i, pixels.at.row0, pixels.at.col0);
            if (stream) stream_fence();
          });
    first = false;
  }
  return count(counts);
}

int64_t Stack::visit(const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type, int threads,
                     const Visitor& f) {
  if (layers_.size() > 1 || elsewhere_.front()) return visit_copies(windows, n, bands, type, threads, f);
  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), int64_t{0});
  Layer& layer = *layers_.front();
  const int64_t size = GDALGetDataTypeSizeBytes(type);
  const Visits visits(windows, all, rows(), cols(), layer.piece_rows(), layer.piece_cols());
  Counts counts;
  layer.decode(visits, layer.select(bands, type, true), threads, counts,
               [&](const Pixels& pixels, int64_t piece, int worker) {
                 std::vector<const void*> first(bands.size());
                 const int64_t valid_step = pixels.at.col1 - pixels.at.col0;
                 visits.each(piece, [&](int64_t window, const Rect& part) {
                   const int64_t row = part.row0 - pixels.at.row0, col = part.col0 - pixels.at.col0;
                   for (size_t b = 0; b < bands.size(); ++b)
                     first[b] = pixels.first[b] + (row * pixels.row_step + col * pixels.pixel_step) * size;
                   f({window, part.row0, part.col0, part.row1 - part.row0, part.col1 - part.col0, first.data(),
                      pixels.pixel_step, pixels.row_step,
                      pixels.valid ? pixels.valid + row * valid_step + col : nullptr, valid_step},
                     worker);
                 });
               });
  return count(counts);
}

// Several rasters, where one has no data if another has none, and resampled ones: their squares are copied together.
int64_t Stack::visit_copies(const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type,
                            int threads, const Visitor& f) {
  constexpr int64_t kSquare = 512;
  struct Square {
    int64_t window, place[4];
  };
  std::vector<Square> squares;
  for (int64_t i = 0; i < n; ++i) {
    const Rect part = meet(windows + 4 * i, {0, 0, rows(), cols()});
    for (int64_t row = part.row0; row < part.row1; row = (row / kSquare + 1) * kSquare)
      for (int64_t col = part.col0; col < part.col1; col = (col / kSquare + 1) * kSquare)
        squares.push_back({i,
                           {row, col, std::min(part.row1, (row / kSquare + 1) * kSquare) - row,
                            std::min(part.col1, (col / kSquare + 1) * kSquare) - col}});
  }
  const int64_t size = GDALGetDataTypeSizeBytes(type), depth = static_cast<int64_t>(bands.size());
  const int64_t count = static_cast<int64_t>(squares.size());
  const int workers = static_cast<int>(std::min<int64_t>(thread_count(threads), count));
  std::atomic<int64_t> decoded{0}, next{0};
  parallel(workers, workers, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> pixels, valid;
    std::vector<const void*> first(bands.size());
    for (int64_t worker = begin; worker < end; ++worker)
      for (int64_t s = next++; s < count; s = next++) {
        const auto& [window, place] = squares[s];
        const int64_t area = place[2] * place[3];
        pixels.resize(static_cast<size_t>(area * depth * size));
        valid.resize(static_cast<size_t>(area));
        decoded += read(place, 1, place[2], place[3], bands, type, pixels.data(), 0, valid.data(), 1);
        for (int64_t b = 0; b < depth; ++b) first[b] = pixels.data() + b * size;
        f({window, place[0], place[1], place[2], place[3], first.data(), depth, depth * place[3], valid.data(),
           place[3]},
          static_cast<int>(worker));
      }
  });
  return decoded;
}

struct Many::State {
  Archives archives;
};

Many::Many(const std::vector<std::string>& paths) : paths_(paths), state_(new State) {
  if (paths.empty()) throw std::invalid_argument("paths: expected at least one path, got none");
  Quiet quiet;
  first_ = describe(*state_->archives.open(paths.front(), quiet), paths.front());
}

Many::~Many() = default;

void Many::read(void* out, int threads) {
  const GDALDataType type = type_of(first_);
  const int64_t size = GDALGetDataTypeSizeBytes(type);
  const int64_t bytes = first_.rows * first_.cols * first_.bands * size;
  const int rows = static_cast<int>(first_.rows), cols = static_cast<int>(first_.cols);
  parallel(
      static_cast<int64_t>(paths_.size()), threads,
      [&](int64_t begin, int64_t end) {
        Quiet quiet;
        for (int64_t i = begin; i < end; ++i) {
          const Image image = state_->archives.open(paths_[i], quiet, true);
          Bands bands = bands_of(*image);
          const std::string dtype = type_name(common_type(*image));
          if (image->GetRasterYSize() != rows || image->GetRasterXSize() != cols ||
              static_cast<int64_t>(bands.imagery.size()) != first_.bands || dtype != first_.dtype)
            throw std::invalid_argument(
                paths_[i] + ": is " + std::to_string(image->GetRasterYSize()) + " x " +
                std::to_string(image->GetRasterXSize()) + " x " + std::to_string(bands.imagery.size()) + " " + dtype +
                ", but " + paths_.front() + " is " + std::to_string(rows) + " x " + std::to_string(cols) + " x " +
                std::to_string(first_.bands) + " " + first_.dtype + "; chips of a dataset must have one size");
          quiet.clear();
          const CPLErr error = image->RasterIO(GF_Read, 0, 0, cols, rows, static_cast<uint8_t*>(out) + i * bytes, cols,
                                               rows, type, static_cast<int>(first_.bands), bands.imagery.data(),
                                               first_.bands * size, cols * first_.bands * size, size, nullptr);
          if (error != CE_None || !quiet.error().empty())
            throw std::invalid_argument(paths_[i] + ": cannot decode (damaged?): " + quiet.error());
        }
      },
      32);
}

}  // namespace rvk
