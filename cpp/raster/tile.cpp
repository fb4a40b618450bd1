#include "raster/tile.h"

#include <ogr_spatialref.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>

#include "parallel.h"
#include "raster/archive.h"
#include "raster/visits.h"

namespace rvk {

namespace {

GDALDataType type_of(const Description& d) {
  return GDALGetDataTypeByName(d.dtype == "uint8" ? "Byte" : d.dtype.c_str());
}

bool sequential(const std::string& driver) {
  return driver == "JPEG" || driver == "PNG" || driver == "GIF" || driver == "WEBP";
}

// The value as it looks in pixels of `type` read from a band of type `native`; false when no such pixel can exist.
bool as_pixel(double value, GDALDataType native, GDALDataType type, void* pixel) {
  double stored = value;
  if (native != GDT_Float32 && native != GDT_Float64) {
    double buffer = 0;
    GDALCopyWords(&value, GDT_Float64, 0, &buffer, native, 0, 1);
    GDALCopyWords(&buffer, native, 0, &stored, GDT_Float64, 0, 1);
    if (stored != value) return false;
  }
  GDALCopyWords(&stored, GDT_Float64, 0, pixel, type, 0, 1);
  return true;
}

template <typename T>
bool is_nan(T value) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(value);
  (void)value;
  return false;
}

// Where each channel of a decoded piece goes.
struct Channels {
  std::vector<int> source;      // GDAL band numbers, imagery first, then alpha if asked for
  std::vector<int64_t> target;  // index among the output bands, per imagery channel
  bool alpha = false;
  bool mask = false;
  std::vector<double> nodata;    // per imagery channel; as values of the output type
  std::vector<char> has_nodata;  // per imagery channel
  bool test_values = false;      // values can mean "no data"
};

template <typename T>
void copy_piece(const T* piece, const uint8_t* mask, const Rect& at, const Channels& channels, const Rect& part,
                const int64_t* window, T* out, int64_t out_bands, uint8_t* valid) {
  const int64_t depth = static_cast<int64_t>(channels.source.size());
  const int64_t used = static_cast<int64_t>(channels.target.size());
  const int64_t width = at.col1 - at.col0;
  const int64_t length = part.col1 - part.col0;
  const bool whole_rows =
      used == depth && used == out_bands && std::is_sorted(channels.target.begin(), channels.target.end());
  for (int64_t row = part.row0; row < part.row1; ++row) {
    const int64_t from = (row - at.row0) * width + (part.col0 - at.col0);
    const int64_t to = (row - window[0]) * window[3] + (part.col0 - window[1]);
    const T* source = piece + from * depth;
    T* target = out + to * out_bands;
    if (whole_rows) {
      std::memcpy(target, source, static_cast<size_t>(length * depth) * sizeof(T));
    } else {
      for (int64_t c = 0; c < used; ++c) {
        const int64_t band = channels.target[c];
        for (int64_t i = 0; i < length; ++i) target[i * out_bands + band] = source[i * depth + c];
      }
    }
    if (!valid) continue;
    uint8_t* ok = valid + to;
    if (mask)
      for (int64_t i = 0; i < length; ++i) ok[i] = mask[from + i] ? ok[i] : uint8_t{0};
    if (channels.alpha)
      for (int64_t i = 0; i < length; ++i) ok[i] = source[i * depth + used] != T{0} ? ok[i] : uint8_t{0};
    if (channels.test_values)
      for (int64_t i = 0; i < length; ++i) {
        bool some = false;
        for (int64_t c = 0; c < used && !some; ++c) {
          const T value = source[i * depth + c];
          some = !is_nan(value) && !(channels.has_nodata[c] && value == static_cast<T>(channels.nodata[c]));
        }
        if (!some) ok[i] = 0;
      }
  }
}

template <typename T>
void fill_all(void* out, int64_t count, double value) {
  std::fill_n(static_cast<T*>(out), count, static_cast<T>(value));
}

}  // namespace

// One raster of a stack, with its handles: GDAL allows one thread at a time per handle, so each worker takes its own.
struct Stack::Layer {
  struct Worker {
    Dataset dataset;
    std::vector<uint8_t> pixels, mask;
  };

  std::string path;
  std::mutex lock;
  std::vector<std::unique_ptr<Worker>> idle;

  std::unique_ptr<Worker> take(Quiet& quiet) {
    {
      std::lock_guard<std::mutex> hold(lock);
      if (!idle.empty()) {
        auto worker = std::move(idle.back());
        idle.pop_back();
        return worker;
      }
    }
    auto worker = std::make_unique<Worker>();
    worker->dataset = open(path, quiet);
    return worker;
  }

  void give(std::unique_ptr<Worker> worker) {
    std::lock_guard<std::mutex> hold(lock);
    idle.push_back(std::move(worker));
  }
};

Stack::Stack(const std::vector<std::string>& paths) : paths_(paths) {
  if (paths.empty()) throw std::invalid_argument("images: expected at least one path, got none");
  Quiet quiet;
  for (const auto& path : paths) {
    auto layer = std::make_unique<Layer>();
    layer->path = path;
    auto worker = layer->take(quiet);
    descriptions_.push_back(describe(*worker->dataset, path));
    layer->give(std::move(worker));
    layers_.push_back(std::move(layer));
    const Description &a = descriptions_.front(), &b = descriptions_.back();
    std::string differs;
    if (a.rows != b.rows || a.cols != b.cols)
      differs = "has " + std::to_string(b.rows) + " x " + std::to_string(b.cols) + " pixels, not " +
                std::to_string(a.rows) + " x " + std::to_string(a.cols);
    const double pixel = std::abs(a.transform[1]) + std::abs(a.transform[2]);
    for (int i = 0; i < 6 && differs.empty(); ++i)  // a thousandth of a pixel, also at the far corner
      if (std::abs(a.transform[i] - b.transform[i]) >
          1e-3 * pixel / (i % 3 ? static_cast<double>(std::max(a.rows, a.cols)) : 1.0))
        differs = "has another geotransform";
    if (differs.empty() && a.crs != b.crs) {
      OGRSpatialReference ours(a.crs.c_str()), theirs(b.crs.c_str());
      if (a.crs.empty() || b.crs.empty() || !ours.IsSame(&theirs)) differs = "has another CRS";
    }
    if (!differs.empty())
      throw std::invalid_argument(path + ": " + differs + " than " + paths.front() +
                                  "; images of one scene must share a grid: warp one onto the other with gdalwarp");
  }
}

Stack::~Stack() {
  Quiet quiet;
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
                    GDALDataType type, void* out, double fill, uint8_t* valid, int threads) {
  const int64_t size = GDALGetDataTypeSizeBytes(type);
  const int64_t out_bands = static_cast<int64_t>(bands.size());
  const int64_t window_values = rows * cols * out_bands;
  const int64_t height = this->rows(), width = this->cols();

  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t* w = windows + 4 * i;
          const bool inside = w[0] >= 0 && w[1] >= 0 && w[0] + rows <= height && w[1] + cols <= width;
          if (valid) std::memset(valid + i * rows * cols, inside ? 1 : 0, static_cast<size_t>(rows * cols));
          if (inside) continue;
          void* first = static_cast<uint8_t*>(out) + i * window_values * size;
          if (type == GDT_Byte) fill_all<uint8_t>(first, window_values, fill);
          if (type == GDT_UInt16) fill_all<uint16_t>(first, window_values, fill);
          if (type == GDT_Int16) fill_all<int16_t>(first, window_values, fill);
          if (type == GDT_Float32) fill_all<float>(first, window_values, fill);
          if (!valid) continue;
          const Rect part = meet(w, {0, 0, height, width});
          for (int64_t row = part.row0; row < part.row1; ++row)
            if (part.col0 < part.col1)
              std::memset(valid + (i * rows + row - w[0]) * cols + part.col0 - w[1], 1,
                          static_cast<size_t>(part.col1 - part.col0));
        }
      },
      64);

  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), int64_t{0});
  std::atomic<int64_t> decoded{0};
  int64_t first_band = 0;
  for (size_t l = 0; l < layers_.size(); ++l) {  // one raster after the other: `valid` is then written by one of them
    Layer& layer = *layers_[l];
    const Description& d = descriptions_[l];
    Quiet quiet;
    auto probe = layer.take(quiet);
    const Bands own = bands_of(*probe->dataset);
    Channels channels;
    for (int64_t b = 0; b < out_bands; ++b) {
      if (bands[b] < first_band || bands[b] >= first_band + d.bands) continue;
      const int number = own.imagery[bands[b] - first_band];
      GDALRasterBand* band = probe->dataset->GetRasterBand(number);
      channels.source.push_back(number);
      channels.target.push_back(b);
      int has = FALSE;
      const double value = band->GetNoDataValue(&has);
      double pixel = 0, seen = 0;
      has = has && as_pixel(value, band->GetRasterDataType(), type, &pixel);
      GDALCopyWords(&pixel, type, 0, &seen, GDT_Float64, 0, 1);
      channels.nodata.push_back(seen);
      channels.has_nodata.push_back(has ? 1 : 0);
      channels.test_values = channels.test_values || has || type == GDT_Float32;
    }
    layer.give(std::move(probe));
    first_band += d.bands;
    if (channels.source.empty()) continue;
    if (valid && own.alpha) {
      channels.alpha = true;
      channels.source.push_back(own.alpha);
    }
    channels.mask = valid && d.mask;

    // Pieces: whole blocks, joined until there are about 64 Ki pixels, so that strips and tiny tiles cost no more
    // calls.
    int64_t block_rows = d.block_rows, block_cols = d.block_cols;
    if (d.driver == "VRT") block_rows = block_cols = 512;
    const int64_t piece_cols = block_cols * std::max<int64_t>(1, 256 / block_cols);
    const int64_t piece_rows = block_rows * std::max<int64_t>(1, 65536 / (piece_cols * block_rows));
    const Visits visits(windows, all, height, width, piece_rows, piece_cols);

    auto work = [&](int64_t begin, int64_t end) {
      Quiet noise;
      auto worker = layer.take(noise);
      for (int64_t p = begin; p < end; ++p) {
        const Rect need = visits.need(p);
        const int64_t need_rows = need.row1 - need.row0, need_cols = need.col1 - need.col0;
        const int64_t depth = static_cast<int64_t>(channels.source.size());
        worker->pixels.resize(static_cast<size_t>(need_rows * need_cols * depth * size));
        noise.clear();
        CPLErr error = worker->dataset->RasterIO(
            GF_Read, static_cast<int>(need.col0), static_cast<int>(need.row0), static_cast<int>(need_cols),
            static_cast<int>(need_rows), worker->pixels.data(), static_cast<int>(need_cols),
            static_cast<int>(need_rows), type, static_cast<int>(depth), const_cast<int*>(channels.source.data()),
            depth * size, need_cols * depth * size, size, nullptr);
        const uint8_t* mask = nullptr;
        if (error == CE_None && channels.mask) {
          worker->mask.resize(static_cast<size_t>(need_rows * need_cols));
          error = worker->dataset->GetRasterBand(channels.source.front())
                      ->GetMaskBand()
                      ->RasterIO(GF_Read, static_cast<int>(need.col0), static_cast<int>(need.row0),
                                 static_cast<int>(need_cols), static_cast<int>(need_rows), worker->mask.data(),
                                 static_cast<int>(need_cols), static_cast<int>(need_rows), GDT_Byte, 0, 0, nullptr);
          mask = worker->mask.data();
        }
        if (error != CE_None || !noise.error().empty())
          throw std::invalid_argument(layer.path + ": cannot decode rows " + std::to_string(need.row0) + " to " +
                                      std::to_string(need.row1) + ", columns " + std::to_string(need.col0) + " to " +
                                      std::to_string(need.col1) + " (damaged?): " + noise.error());
        decoded += ((need.row1 - 1) / block_rows - need.row0 / block_rows + 1) *
                   ((need.col1 - 1) / block_cols - need.col0 / block_cols + 1);
        auto copy = [&](auto* pixels, auto* target) {
          visits.each(p, [&](int64_t i, const Rect& part) {
            copy_piece(pixels, mask, need, channels, part, windows + 4 * i, target + i * window_values, out_bands,
                       valid ? valid + i * rows * cols : nullptr);
          });
        };
        void* pixels = worker->pixels.data();
        if (type == GDT_Byte) copy(static_cast<const uint8_t*>(pixels), static_cast<uint8_t*>(out));
        if (type == GDT_UInt16) copy(static_cast<const uint16_t*>(pixels), static_cast<uint16_t*>(out));
        if (type == GDT_Int16) copy(static_cast<const int16_t*>(pixels), static_cast<int16_t*>(out));
        if (type == GDT_Float32) copy(static_cast<const float*>(pixels), static_cast<float*>(out));
      }
      layer.give(std::move(worker));
    };
    if (sequential(d.driver))
      work(0, visits.pieces());
    else
      parallel(visits.pieces(), threads, work);
  }
  return decoded;
}

int64_t Stack::visit(const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type, int threads,
                     const Visitor& f) {
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
