#include "raster/grid.h"

#include <cpl_string.h>
#include <gdal_alg.h>
#include <ogr_spatialref.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>

#include "parallel.h"
#include "raster/buffer.h"
#include "raster/pool.h"
#include "raster/resample.h"

namespace rvk {

namespace {

constexpr int64_t kMostSource = int64_t{1} << 22;  // values of the raster held at once to resample them
constexpr double kFinest = 1.01;                   // an overview's pixels may be so much larger than those wanted

using Affine = std::array<double, 6>;  // GDAL's order: x = a[0] + a[1] col + a[2] row, y = a[3] + a[4] col + a[5] row

// First `inner`, then `outer`.
Affine compose(const Affine& outer, const Affine& inner) {
  return {outer[0] + outer[1] * inner[0] + outer[2] * inner[3],
          outer[1] * inner[1] + outer[2] * inner[4],
          outer[1] * inner[2] + outer[2] * inner[5],
          outer[3] + outer[4] * inner[0] + outer[5] * inner[3],
          outer[4] * inner[1] + outer[5] * inner[4],
          outer[4] * inner[2] + outer[5] * inner[5]};
}

// Pixels of grid b as pixels of grid a, both in one CRS. The origins are subtracted first: they are large, their
// difference is not.
Affine pixels_to_pixels(const Affine& b, const Affine& a, const std::string& path) {
  const double determinant = a[1] * a[5] - a[2] * a[4];
  if (determinant == 0) throw std::invalid_argument(path + ": its geotransform has no inverse");
  const Affine inverse{0, a[5] / determinant, -a[2] / determinant, 0, -a[4] / determinant, a[1] / determinant};
  return compose(inverse, {b[0] - a[0], b[1], b[2], b[3] - a[3], b[4], b[5]});
}

bool same_crs(const std::string& a, const std::string& b) {
  if (a == b) return true;
  if (a.empty() || b.empty()) return false;
  OGRSpatialReference ours, theirs;
  for (const auto& [reference, text] : {std::pair{&ours, &a}, std::pair{&theirs, &b}}) {
    if (reference->SetFromUserInput(text->c_str()) != OGRERR_NONE)
      throw std::invalid_argument("no CRS '" + text->substr(0, 60) + "'; expected WKT or a name such as EPSG:32618");
    reference->SetAxisMappingStrategy(OAMS_TRADITIONAL_GIS_ORDER);
  }
  return ours.IsSame(&theirs);
}

// None: the method is left to GDAL.
std::optional<Kernel> kernel_of(GDALResampleAlg method) {
  if (method == GRA_NearestNeighbour) return Kernel::nearest;
  if (method == GRA_Bilinear) return Kernel::bilinear;
  if (method == GRA_Average) return Kernel::average;
  return std::nullopt;
}

// Round up, for positive divisors.
int64_t divide_up(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

struct DestroyTransformer {
  void operator()(void* transformer) const { GDALDestroyGenImgProjTransformer(transformer); }
};

struct DestroyOptions {
  void operator()(GDALWarpOptions* options) const { GDALDestroyWarpOptions(options); }
};

struct Strings {  // a GDAL list of NAME=VALUE
  char** list = nullptr;
  Strings() = default;
  Strings(const Strings&) = delete;
  Strings& operator=(const Strings&) = delete;
  ~Strings() { CSLDestroy(list); }
  void set(const char* name, const std::string& value) { list = CSLSetNameValue(list, name, value.c_str()); }
};

std::string digits(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

}  // namespace

Grid grid_of(const Description& d) { return {d.rows, d.cols, d.transform, d.crs}; }

bool georeferenced(const Description& d) { return d.transform != Description{}.transform; }

std::string difference(const Grid& grid, const Grid& other) {
  if (grid.rows != other.rows || grid.cols != other.cols)
    return "has " + std::to_string(other.rows) + " x " + std::to_string(other.cols) + " pixels, not " +
           std::to_string(grid.rows) + " x " + std::to_string(grid.cols);
  const double pixel = std::abs(grid.transform[1]) + std::abs(grid.transform[2]);
  for (int i = 0; i < 6; ++i)  // a thousandth of a pixel, also at the far corner
    if (std::abs(grid.transform[i] - other.transform[i]) >
        1e-3 * pixel / (i % 3 ? static_cast<double>(std::max(grid.rows, grid.cols)) : 1.0))
      return "has another geotransform";
  return same_crs(grid.crs, other.crs) ? "" : "has another CRS";
}

Rect on_grid(const int64_t* window, int64_t out_rows, int64_t out_cols, const Grid& grid) {
  // Output row i has its centre at row + (2 i + 1) rows / (2 out_rows); the first at or after row r of the grid:
  auto first = [](int64_t r, int64_t start, int64_t length, int64_t out) {
    return std::clamp<int64_t>(divide_up(2 * out * (r - start) - length, 2 * length), 0, out);
  };
  return {first(0, window[0], window[2], out_rows), first(0, window[1], window[3], out_cols),
          first(grid.rows, window[0], window[2], out_rows), first(grid.cols, window[1], window[3], out_cols)};
}

struct Regridded::State {
  // The handles of one thread: per level a dataset, and a transformer from pixels of a grid.
  struct Level {
    Dataset dataset;
    std::unique_ptr<void, DestroyTransformer> transformer;
  };
  struct Worker {
    std::map<int, Level> levels;
    Buffer buffer, valid;
    Pixels pixels;
    Buffer source, source_valid;
    ResampleBuffers resample;
  };
  struct Overview {
    double rows, cols;  // pixels of the raster per pixel of it
  };

  Layer& layer;
  const std::string path;
  const Description description;
  Grid grid;
  GDALResampleAlg method;
  bool one_crs = true;
  Affine to_source{};            // with one CRS: pixels of the grid to pixels of the raster
  double across = 1, down = 1;   // columns and rows of the raster under one pixel of the grid
  std::optional<Kernel> kernel;  // of resample(); none: GDAL warps
  std::vector<Overview> overviews;
  std::mutex lock;
  std::vector<std::unique_ptr<Layer>> levels;  // per overview; made when first needed
  Pool<Worker> workers;

  State(Layer& layer, const Grid& grid, GDALResampleAlg method)
      : layer(layer), path(layer.path()), description(layer.description()), grid(grid), method(method) {}

  Layer& layer_of(int level) {
    if (level == kFull) return layer;
    const std::lock_guard<std::mutex> hold(lock);
    levels.resize(overviews.size());
    if (!levels[level]) levels[level] = layer.overview(level);
    return *levels[level];
  }

  Affine scale_of(int level) const {
    if (level == kFull) return {0, 1, 0, 0, 0, 1};
    return {0, 1 / overviews[level].cols, 0, 0, 0, 1 / overviews[level].rows};
  }

  // The level to read when a pixel wanted covers so many columns and rows of the raster.
  int level_for(double wanted_across, double wanted_down) const {
    int best = kFull;
    double most = 1;
    for (size_t i = 0; i < overviews.size(); ++i) {
      const Overview& o = overviews[i];
      if (o.cols > wanted_across * kFinest || o.rows > wanted_down * kFinest || o.cols * o.rows <= most) continue;
      most = o.cols * o.rows;
      best = static_cast<int>(i);
    }
    return best;
  }

  Level& open_level(Worker& worker, int number, Quiet& quiet) const {
    Level& level = worker.levels[number];
    if (level.transformer) return level;
    level.dataset = rvk::open_level(path, number, quiet);
    Strings options;
    if (one_crs) {
      options.set("SRC_METHOD", "NO_GEOTRANSFORM");
    } else {
      options.set("SRC_METHOD", "GEOTRANSFORM");
      options.set("SRC_SRS", description.crs);
      options.set("DST_SRS", grid.crs);
    }
    quiet.clear();
    level.transformer.reset(GDALCreateGenImgProjTransformer2(level.dataset.get(), nullptr, options.list));
    if (!level.transformer) throw std::invalid_argument(path + ": cannot be placed on the grid: " + quiet.error());
    return level;
  }

  // Let the level's transformer take the pixels of a window's output to those of the level.
  void aim(const Level& level, int number, const Affine& window) const {
    const Affine to = compose(one_crs ? compose(scale_of(number), to_source) : grid.transform, window);
    GDALSetGenImgProjTransformerDstGeoTransform(level.transformer.get(), to.data());
  }

  // Sets `across` and `down`, and throws when the raster is nowhere on the grid.
  void measure(Worker& worker, Quiet& quiet);

  // `part` of the output grid whose pixels `window` takes to the grid's, into worker.pixels.
  void read(Worker& worker, Quiet& quiet, const Affine& window, const Rect& part, const std::vector<int>& bands,
            GDALDataType type, double fill, Counts& counts) {
    if (kernel)
      resample(worker, window, part, bands, type, fill, counts);
    else
      warp(worker, quiet, window, part, bands, type, fill);
  }
  // By raster/resample.h out of blocks that the layer decodes.
  void resample(Worker& worker, const Affine& window, const Rect& part, const std::vector<int>& bands,
                GDALDataType type, double fill, Counts& counts);
  // `at` of the level, pixels side by side, into worker.source. Returns where there is data; null: everywhere.
  const uint8_t* fetch(Worker& worker, Layer& level, const Selection& wanted, const Rect& at, Counts& counts);
  // By GDAL.
  void warp(Worker& worker, Quiet& quiet, const Affine& window, const Rect& part, const std::vector<int>& bands,
            GDALDataType type, double fill) const;

  // f(worker, quiet, task, number of the worker) for tasks [0, n), on several threads.
  template <typename F>
  void each(int64_t n, int threads, F&& f);
};

void Regridded::State::measure(Worker& worker, Quiet& quiet) {
  const Level& level = open_level(worker, kFull, quiet);
  aim(level, kFull, {0, 1, 0, 0, 0, 1});
  // 21 x 21 points of the raster on the grid. A raster that bends that much between them is no map.
  constexpr int kPoints = 21;
  std::vector<double> x, y;
  for (int i = 0; i < kPoints; ++i)
    for (int j = 0; j < kPoints; ++j) {
      x.push_back(static_cast<double>(description.cols) * j / (kPoints - 1));
      y.push_back(static_cast<double>(description.rows) * i / (kPoints - 1));
    }
  std::vector<double> z(x.size());
  std::vector<int> good(x.size());
  GDALGenImgProjTransform(level.transformer.get(), FALSE, static_cast<int>(x.size()), x.data(), y.data(), z.data(),
                          good.data());
  double left = std::numeric_limits<double>::infinity(), right = -left, top = left, bottom = -left;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!good[i]) continue;
    left = std::min(left, x[i]), right = std::max(right, x[i]);
    top = std::min(top, y[i]), bottom = std::max(bottom, y[i]);
  }
  if (!(left < static_cast<double>(grid.cols) && right > 0 && top < static_cast<double>(grid.rows) && bottom > 0))
    throw std::invalid_argument(path + ": has no pixel on the grid of " + std::to_string(grid.rows) + " x " +
                                std::to_string(grid.cols) + " pixels; check its geotransform and CRS");
  if (one_crs) {
    across = std::abs(to_source[1]) + std::abs(to_source[2]);
    down = std::abs(to_source[4]) + std::abs(to_source[5]);
    return;
  }
  // Around the raster's middle.
  const size_t middle = x.size() / 2;
  if (!good[middle]) throw std::invalid_argument(path + ": its middle has no place in the grid's CRS");
  std::vector<double> px{x[middle], x[middle] + 1, x[middle]}, py{y[middle], y[middle], y[middle] + 1}, pz(3);
  std::vector<int> ok(3);
  GDALGenImgProjTransform(level.transformer.get(), TRUE, 3, px.data(), py.data(), pz.data(), ok.data());
  if (!ok[0] || !ok[1] || !ok[2]) throw std::invalid_argument(path + ": the grid has no place in its CRS");
  across = std::abs(px[1] - px[0]) + std::abs(px[2] - px[0]);
  down = std::abs(py[1] - py[0]) + std::abs(py[2] - py[0]);
}

void Regridded::State::warp(Worker& worker, Quiet& quiet, const Affine& window, const Rect& part,
                            const std::vector<int>& bands, GDALDataType type, double fill) const {
  const double wanted_across = across * std::abs(window[1]), wanted_down = down * std::abs(window[5]);
  const int number = level_for(wanted_across, wanted_down);
  const Level& level = open_level(worker, number, quiet);
  aim(level, number, window);
  GDALDataset& source = *level.dataset;

  const int64_t depth = static_cast<int64_t>(bands.size()) + 1, size = GDALGetDataTypeSizeBytes(type);
  const int64_t rows = part.row1 - part.row0, cols = part.col1 - part.col0;
  std::vector<double> empty(static_cast<size_t>(depth),
                            fill);  // the warper leaves pixels alone that it has no data for
  empty.back() = 0;
  const auto room = static_cast<size_t>(rows * cols * depth * size);
  uint8_t* const buffer = worker.buffer.reserve(room);
  GDALCopyWords(empty.data(), GDT_Float64, sizeof(double), buffer, type, static_cast<int>(size),
                static_cast<int>(depth));
  for (size_t have = static_cast<size_t>(depth * size); have < room; have *= 2)
    std::memcpy(buffer + have, buffer, std::min(have, room - have));

  // A dataset of the whole output grid that has memory for the part only. So a pixel's coordinates, and with them its
  // value to the last bit, are the same in whatever part it is warped.
  GDALDriver* memory = GetGDALDriverManager()->GetDriverByName("MEM");
  Dataset piece(memory->Create("", static_cast<int>(part.col1), static_cast<int>(part.row1), 0, type, nullptr));
  const int64_t before = (part.row0 * cols + part.col0) * depth * size;
  for (int64_t b = 0; b < depth; ++b) {
    char pointer[64] = {};
    const auto address = reinterpret_cast<uintptr_t>(buffer + b * size) - static_cast<uintptr_t>(before);
    CPLPrintPointer(pointer, reinterpret_cast<void*>(address), sizeof pointer - 1);
    Strings options;
    options.set("DATAPOINTER", pointer);
    options.set("PIXELOFFSET", std::to_string(depth * size));
    options.set("LINEOFFSET", std::to_string(cols * depth * size));
    piece->AddBand(type, options.list);
  }

  std::unique_ptr<GDALWarpOptions, DestroyOptions> options(GDALCreateWarpOptions());
  options->hSrcDS = &source;
  options->hDstDS = piece.get();
  options->eResampleAlg = method;
  options->pfnTransformer = GDALGenImgProjTransform;
  options->pTransformerArg = level.transformer.get();
  GDALWarpInitDefaultBandMapping(options.get(), static_cast<int>(depth) - 1);
  const Bands own = bands_of(source);
  for (size_t b = 0; b < bands.size(); ++b) options->panSrcBands[b] = own.imagery[bands[b]];
  options->nSrcAlphaBand = own.alpha;
  options->nDstAlphaBand = static_cast<int>(depth);
  std::vector<double> nodata;
  bool some = false;
  for (const int b : bands) {
    GDALRasterBand* band = source.GetRasterBand(own.imagery[b]);
    int has = FALSE;
    const double value = band->GetNoDataValue(&has);
    const GDALDataType native = band->GetRasterDataType();
    const bool real = native == GDT_Float32 || native == GDT_Float64;
    // NaN is no data in any case; whole numbers never have the value that stands for none.
    nodata.push_back(has ? value : real ? std::numeric_limits<double>::quiet_NaN() : -1.1e20);
    some = some || has || real;
  }
  if (some) {
    GDALWarpInitSrcNoDataReal(options.get(), 0);
    std::copy(nodata.begin(), nodata.end(), options->padfSrcNoDataReal);
  }
  Strings details;
  details.set("INIT_DEST", digits(fill));
  details.set("UNIFIED_SRC_NODATA", "NO");
  details.set("XSCALE", digits(1 / (wanted_across * scale_of(number)[1])));
  details.set("YSCALE", digits(1 / (wanted_down * scale_of(number)[5])));
  if (!one_crs) details.set("SAMPLE_GRID", "YES");
  options->papszWarpOptions = CSLDuplicate(details.list);

  quiet.clear();
  GDALWarpOperation operation;
  CPLErr error = operation.Initialize(options.get());
  if (error == CE_None)
    error = operation.ChunkAndWarpImage(static_cast<int>(part.col0), static_cast<int>(part.row0),
                                        static_cast<int>(cols), static_cast<int>(rows));
  if (error != CE_None || !quiet.error().empty())
    throw std::invalid_argument(path + ": cannot read it on the grid (damaged?): " + quiet.error());

  Pixels& pixels = worker.pixels;
  pixels.at = part;
  pixels.pixel_step = depth;
  pixels.row_step = cols * depth;
  pixels.first.clear();
  for (int64_t b = 0; b < depth; ++b) pixels.first.push_back(buffer + b * size);
  uint8_t* valid = worker.valid.reserve(static_cast<size_t>(rows * cols));
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    mark_data(pixels, std::vector<NoData<T>>(bands.size(), {T{0}, false}), valid);  // NaN is none
    clear_where_zero<T>(pixels, bands.size(), valid);
  });
  pixels.valid = valid;
}

const uint8_t* Regridded::State::fetch(Worker& worker, Layer& level, const Selection& wanted, const Rect& at,
                                       Counts& counts) {
  const auto depth = static_cast<int64_t>(wanted.imagery);
  const int64_t size = GDALGetDataTypeSizeBytes(wanted.type);
  const int64_t rows = at.row1 - at.row0, cols = at.col1 - at.col0;
  const bool masked = wanted.values || wanted.alpha || wanted.mask;
  uint8_t* const to = worker.source.reserve(static_cast<size_t>(rows * cols * depth * size));
  uint8_t* const valid = masked ? worker.source_valid.reserve(static_cast<size_t>(rows * cols)) : nullptr;
  std::vector<int64_t> offsets(static_cast<size_t>(depth));
  std::iota(offsets.begin(), offsets.end(), int64_t{0});
  const int64_t window[4] = {at.row0, at.col0, rows, cols};
  const Description& d = level.description();
  const Visits visits(window, {0}, d.rows, d.cols, level.piece_rows(), level.piece_cols());
  level.decode(visits, wanted, 1, counts, [&](const Pixels& pixels, int64_t piece, int) {
    const PixelCopy copy(pixels, static_cast<int>(size), offsets, depth, cols * depth, false);
    visits.each(piece, [&](int64_t, const Rect& part) {
      const int64_t first = (part.row0 - at.row0) * cols + part.col0 - at.col0;
      copy(part, to + first * depth * size);
      if (valid) copy_valid(pixels, part, true, valid + first, cols, false);
    });
  });
  return valid;
}

void Regridded::State::resample(Worker& worker, const Affine& window, const Rect& part, const std::vector<int>& bands,
                                GDALDataType type, double fill, Counts& counts) {
  const int number = level_for(across * std::abs(window[1]), down * std::abs(window[5]));
  Layer& level = layer_of(number);
  const Affine to = compose(compose(scale_of(number), to_source), window);
  const Taps rows(*kernel, to[3], to[5], part.row0, part.row1, level.description().rows);
  const Taps cols(*kernel, to[0], to[1], part.col0, part.col1, level.description().cols);
  const Selection wanted = level.select(bands, type, true);

  const auto depth = static_cast<int64_t>(bands.size());
  const int64_t size = GDALGetDataTypeSizeBytes(type);
  uint8_t* const out = worker.buffer.reserve(static_cast<size_t>(rows.size() * cols.size() * depth * size));
  uint8_t* const valid = worker.valid.reserve(static_cast<size_t>(rows.size() * cols.size()));
  const Taps::Span across_span = cols.span(0, cols.size());
  const int64_t width = std::max<int64_t>(0, across_span.high - across_span.low);
  for (int64_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    // As many rows as have their source in little memory, at least one.
    Taps::Span span = rows.span(begin, ++end);
    for (; end < rows.size(); ++end) {
      const Taps::Span next = rows.span(end, end + 1);
      const Taps::Span both{std::min(span.low, next.low), std::max(span.high, next.high)};
      if ((both.high - both.low) * width * depth > kMostSource) break;
      span = both;
    }
    Rect at{span.low, across_span.low, span.high, across_span.high};
    if (at.empty()) at = {0, 0, 0, 0};
    const uint8_t* const source_valid = at.empty() ? nullptr : fetch(worker, level, wanted, at, counts);
    with_type(type, [&](auto zero) {
      using T = decltype(zero);
      std::vector<NoData<T>> nodata;
      for (size_t b = 0; b < bands.size(); ++b)
        nodata.push_back({static_cast<T>(wanted.nodata[b]), wanted.has_nodata[b] != 0});
      rvk::resample(reinterpret_cast<const T*>(worker.source.data()), at, nodata, source_valid, rows, begin, end, cols,
                    static_cast<T>(fill), worker.resample, reinterpret_cast<T*>(out) + begin * cols.size() * depth,
                    valid + begin * cols.size());
    });
  }
  Pixels& pixels = worker.pixels;
  pixels.at = part;
  pixels.pixel_step = depth;
  pixels.row_step = cols.size() * depth;
  pixels.first.clear();
  for (int64_t b = 0; b < depth; ++b) pixels.first.push_back(out + b * size);
  pixels.valid = valid;
}

template <typename F>
void Regridded::State::each(int64_t n, int threads, F&& f) {
  std::atomic<int64_t> next{0};
  const int count = static_cast<int>(std::min<int64_t>(thread_count(threads), n));
  parallel(count, count, [&](int64_t first, int64_t last) {
    Quiet quiet;
    for (int64_t number = first; number < last; ++number) {
      auto worker = workers.take();
      try {
        for (int64_t task = next++; task < n; task = next++) f(*worker, quiet, task, static_cast<int>(number));
      } catch (...) {
        next = n;  // the others need not go on
        throw;
      }
      workers.give(std::move(worker));
    }
  });
}

Regridded::Regridded(Layer& layer, const Grid& grid, GDALResampleAlg method) : state_(new State(layer, grid, method)) {
  State& s = *state_;
  const Description& description = s.description;
  if (grid.crs.empty() != description.crs.empty())
    throw std::invalid_argument(s.path + (grid.crs.empty() ? ": has a CRS, but the grid has none"
                                                           : ": has no CRS, so it has no place on a grid with one"));
  s.one_crs = same_crs(grid.crs, description.crs);
  if (s.one_crs) {
    s.to_source = pixels_to_pixels(grid.transform, description.transform, s.path);
    if (s.to_source[2] == 0 && s.to_source[4] == 0) s.kernel = kernel_of(method);
  }
  Quiet quiet;
  auto worker = s.workers.take();
  s.measure(*worker, quiet);
  GDALDataset& dataset = *worker->levels.at(kFull).dataset;
  GDALRasterBand* band = dataset.GetRasterBand(bands_of(dataset).imagery.front());
  // Nearest neighbour is for labels: its values are those of the raster itself, not averages in an overview.
  const int count = method == GRA_NearestNeighbour ? 0 : band->GetOverviewCount();
  for (int i = 0; i < count; ++i) {
    GDALRasterBand* overview = band->GetOverview(i);
    State::Overview o{static_cast<double>(description.rows) / overview->GetYSize(),
                      static_cast<double>(description.cols) / overview->GetXSize()};
    // An overview of pixels without one of their mask would make masked pixels valid: never fine enough.
    if (description.mask && !(overview->GetMaskFlags() & GMF_PER_DATASET))
      o.rows = o.cols = std::numeric_limits<double>::infinity();
    s.overviews.push_back(o);
  }
  s.workers.give(std::move(worker));
}

Regridded::~Regridded() {
  Quiet quiet;
  state_.reset();
}

void Regridded::decode(const Visits& visits, const std::vector<int>& bands, GDALDataType type, double fill, int threads,
                       Counts& counts, const Use& use) const {
  state_->each(visits.pieces(), threads, [&](State::Worker& worker, Quiet& quiet, int64_t piece, int number) {
    state_->read(worker, quiet, {0, 1, 0, 0, 0, 1}, visits.need(piece), bands, type, fill, counts);
    use(worker.pixels, piece, number);
  });
}

void Regridded::stretch(const int64_t* windows, std::vector<int64_t> which, int64_t rows, int64_t cols,
                        const std::vector<int>& bands, GDALDataType type, double fill, int threads, Counts& counts,
                        const Use& use) const {
  // Neighbours after each other, so that they meet the blocks that GDAL still holds.
  std::sort(which.begin(), which.end(), [&](int64_t a, int64_t b) {
    const int64_t *v = windows + 4 * a, *w = windows + 4 * b;
    const int64_t strip_a = v[0] / kPiece, strip_b = w[0] / kPiece;
    return strip_a != strip_b ? strip_a < strip_b : v[1] != w[1] ? v[1] < w[1] : a < b;
  });
  const auto count = static_cast<int64_t>(which.size());
  state_->each(count, threads, [&](State::Worker& worker, Quiet& quiet, int64_t task, int number) {
    const int64_t i = which[task];
    const int64_t* w = windows + 4 * i;
    const Rect part = on_grid(w, rows, cols, state_->grid);
    if (part.empty()) return;
    const Affine at{static_cast<double>(w[1]),
                    static_cast<double>(w[3]) / static_cast<double>(cols),
                    0,
                    static_cast<double>(w[0]),
                    0,
                    static_cast<double>(w[2]) / static_cast<double>(rows)};
    state_->read(worker, quiet, at, part, bands, type, fill, counts);
    use(worker.pixels, i, number);
  });
}

}  // namespace rvk
