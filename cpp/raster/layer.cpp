#include "raster/layer.h"

#include <algorithm>

#include "parallel.h"

namespace rvk {

namespace {

// Formats without random access: from top to bottom, by one thread.
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

}  // namespace

// What one thread needs. GDAL allows one thread at a time per handle.
struct Layer::Worker {
  Dataset dataset;  // null until it is needed
  std::unique_ptr<Tiff::Reader> reader;
  std::vector<std::shared_ptr<const Buffer>> found;  // of the pieces at hand, plane by plane; null: to be decoded
  std::vector<Tiff::Reader::Wanted> wanted;
  std::vector<Buffer> decoded, converted;  // per plane
  Buffer gdal, mask, valid;
  Pixels pixels;
};

Layer::Layer(std::string path, bool direct, std::shared_ptr<BlockCache> cache, int level)
    : path_(std::move(path)),
      direct_(direct),
      cache_(std::move(cache)),
      id_(cache_ ? cache_->add_layer() : 0),
      level_(level),
      workers_(new Pool<Worker>) {
  Quiet quiet;
  auto worker = std::make_unique<Worker>();
  worker->dataset = open_file(quiet);
  GDALDataset& dataset = *worker->dataset;
  description_ = describe(dataset, path_);
  bands_ = bands_of(dataset);
  if (direct && description_.driver == "GTiff") tiff_ = Tiff::open(path_, dataset);
  if (tiff_) {
    native_ = dataset.GetRasterBand(1)->GetRasterDataType();
    piece_rows_ = tiff_->piece_rows();
    piece_cols_ = tiff_->piece_cols();
  } else {
    const bool vrt = description_.driver == "VRT";  // it does not say how its sources are blocked
    const int64_t block_rows = vrt ? 512 : description_.block_rows, block_cols = vrt ? 512 : description_.block_cols;
    piece_cols_ = block_cols * std::max<int64_t>(1, 256 / block_cols);
    piece_rows_ = block_rows * std::max<int64_t>(1, 65536 / (piece_cols_ * block_rows));
  }
  workers_->give(std::move(worker));
}

Layer::~Layer() = default;

Dataset Layer::open_file(Quiet& quiet) const { return open_level(path_, level_, quiet); }

GDALDataset& Layer::dataset(Worker& worker, Quiet& quiet) {
  if (!worker.dataset) worker.dataset = open_file(quiet);
  return *worker.dataset;
}

Selection Layer::select(const std::vector<int>& bands, GDALDataType type, bool valid) {
  Quiet quiet;
  auto worker = workers_->take();
  GDALDataset& file = dataset(*worker, quiet);
  Selection s;
  s.type = type;
  s.imagery = bands.size();
  for (const int b : bands) {
    GDALRasterBand* band = file.GetRasterBand(bands_.imagery[b]);
    s.channels.push_back(bands_.imagery[b]);
    int has = FALSE;
    const double value = band->GetNoDataValue(&has);
    double pixel = 0, seen = 0;
    has = has && as_pixel(value, band->GetRasterDataType(), type, &pixel);
    GDALCopyWords(&pixel, type, 0, &seen, GDT_Float64, 0, 1);
    s.nodata.push_back(seen);
    s.has_nodata.push_back(has ? 1 : 0);
    s.values = s.values || (valid && (has || type == GDT_Float32));
  }
  if (valid && bands_.alpha) {
    s.alpha = true;
    s.channels.push_back(bands_.alpha);
  }
  s.mask = valid && description_.mask;
  workers_->give(std::move(worker));
  return s;
}

BlockCache::Key Layer::key(const Rect& piece, int64_t plane) const {
  const int64_t across = (description_.cols + piece_cols_ - 1) / piece_cols_;
  return {id_, plane, piece.row0 / piece_rows_ * across + piece.col0 / piece_cols_};
}

namespace {

// The planes of the file that hold the channels, in order, each once.
std::vector<int64_t> planes_of(const Tiff& tiff, const Selection& wanted) {
  if (tiff.planes() == 1) return {0};
  std::vector<int64_t> planes;
  for (const int channel : wanted.channels) planes.push_back(channel - 1);
  std::sort(planes.begin(), planes.end());
  planes.erase(std::unique(planes.begin(), planes.end()), planes.end());
  return planes;
}

}  // namespace

// What of the pieces [begin, end) is in the cache; the rest is announced to the reader.
void Layer::find(Worker& w, const Visits& visits, int64_t begin, int64_t end, const Selection& wanted, bool keep) {
  w.found.clear();
  w.wanted.clear();
  const bool cached = cache_ && tiff_->compressed();
  for (int64_t p = begin; p < end; ++p) {
    const Rect piece = visits.piece(p), covering = tiff_->covering(keep ? piece : visits.need(p));
    for (const int64_t plane : planes_of(*tiff_, wanted)) {
      w.found.push_back(cached ? cache_->find(key(piece, plane)) : nullptr);
      if (!w.found.back()) w.wanted.push_back({covering, plane});
    }
  }
  if (!w.wanted.empty()) w.reader->announce(w.wanted);
}

// Piece `number` of those that find() saw. False when there is something that only GDAL may understand.
bool Layer::decode_tiff(Worker& w, const Rect& piece, const Rect& need, size_t number, const Selection& wanted,
                        bool keep, Counts& counts) {
  const std::vector<int64_t> planes = planes_of(*tiff_, wanted);
  const int64_t samples = tiff_->samples(), bytes = tiff_->value_bytes();
  const int64_t size = GDALGetDataTypeSizeBytes(wanted.type);
  const int64_t rows = need.row1 - need.row0;
  w.decoded.resize(std::max(w.decoded.size(), planes.size()));
  w.converted.resize(std::max(w.converted.size(), planes.size()));
  Pixels& pixels = w.pixels;
  std::vector<const uint8_t*> first(planes.size());  // of each plane, at `need`
  for (size_t i = 0; i < planes.size(); ++i) {
    std::shared_ptr<const Buffer>& found = w.found[number * planes.size() + i];
    const Rect covering = tiff_->covering(found || keep ? piece : need);
    const int64_t cols = covering.col1 - covering.col0;
    const auto room = static_cast<size_t>((covering.row1 - covering.row0) * cols * samples * bytes);
    const uint8_t* data;
    if (found) {
      data = found->data();
      counts.cached += tiff_->blocks_in(covering);
    } else {
      std::shared_ptr<Buffer> kept = keep ? cache_->make(room) : nullptr;
      uint8_t* to = kept ? kept->reserve(room) : w.decoded[i].reserve(room);
      if (!w.reader->decode(covering, planes[i], to)) return false;
      data = to;
      counts.decoded += tiff_->blocks_in(covering);
      if (kept) {
        found = kept;  // as long as it is used here
        cache_->insert(key(piece, planes[i]), std::move(kept));
      }
    }
    data += (need.row0 - covering.row0) * cols * samples * bytes;
    if (native_ != wanted.type) {
      uint8_t* to = w.converted[i].reserve(static_cast<size_t>(rows * cols * samples * size));
      GDALCopyWords64(data, native_, static_cast<int>(bytes), to, wanted.type, static_cast<int>(size),
                      rows * cols * samples);
      data = to;
    }
    first[i] = data + (need.col0 - covering.col0) * samples * size;
    pixels.pixel_step = samples;
    pixels.row_step = cols * samples;
  }
  pixels.at = need;
  pixels.first.clear();
  for (const int channel : wanted.channels) {
    if (tiff_->planes() == 1) {
      pixels.first.push_back(first[0] + (channel - 1) * size);
    } else {
      pixels.first.push_back(first[std::lower_bound(planes.begin(), planes.end(), channel - 1) - planes.begin()]);
    }
  }
  return true;
}

void Layer::decode_gdal(Worker& w, Quiet& quiet, const Rect& need, const Selection& wanted, Counts& counts) {
  const int64_t size = GDALGetDataTypeSizeBytes(wanted.type);
  const auto depth = static_cast<int64_t>(wanted.channels.size());
  const int64_t rows = need.row1 - need.row0, cols = need.col1 - need.col0;
  GDALDataset& file = dataset(w, quiet);
  uint8_t* to = w.gdal.reserve(static_cast<size_t>(rows * cols * depth * size));
  quiet.clear();
  const CPLErr error = file.RasterIO(
      GF_Read, static_cast<int>(need.col0), static_cast<int>(need.row0), static_cast<int>(cols), static_cast<int>(rows),
      to, static_cast<int>(cols), static_cast<int>(rows), wanted.type, static_cast<int>(depth),
      const_cast<int*>(wanted.channels.data()), depth * size, cols * depth * size, size, nullptr);
  if (error != CE_None || !quiet.error().empty())
    throw std::invalid_argument(path_ + ": cannot decode rows " + std::to_string(need.row0) + " to " +
                                std::to_string(need.row1) + ", columns " + std::to_string(need.col0) + " to " +
                                std::to_string(need.col1) + " (damaged?): " + quiet.error());
  const int64_t block_rows = description_.block_rows, block_cols = description_.block_cols;
  const int64_t blocks = ((need.row1 - 1) / block_rows - need.row0 / block_rows + 1) *
                         ((need.col1 - 1) / block_cols - need.col0 / block_cols + 1);
  counts.decoded += blocks;
  counts.by_gdal += blocks;
  Pixels& pixels = w.pixels;
  pixels.at = need;
  pixels.pixel_step = depth;
  pixels.row_step = cols * depth;
  pixels.first.clear();
  for (int64_t c = 0; c < depth; ++c) pixels.first.push_back(to + c * size);
}

// Which of the decoded pixels are data.
void Layer::mark(Worker& w, Quiet& quiet, const Rect& need, const Selection& wanted) {
  w.pixels.valid = nullptr;
  if (!wanted.values && !wanted.alpha && !wanted.mask) return;
  const int64_t rows = need.row1 - need.row0, cols = need.col1 - need.col0;
  uint8_t* valid = w.valid.reserve(static_cast<size_t>(rows * cols));
  with_type(wanted.type, [&](auto zero) {
    using T = decltype(zero);
    if (wanted.values) {
      std::vector<NoData<T>> nodata;
      for (size_t c = 0; c < wanted.imagery; ++c)
        nodata.push_back({static_cast<T>(wanted.nodata[c]), wanted.has_nodata[c] != 0});
      mark_data(w.pixels, nodata, valid);
    } else {
      std::fill_n(valid, rows * cols, uint8_t{1});
    }
    if (wanted.alpha) clear_where_zero<T>(w.pixels, wanted.imagery, valid);
  });
  if (wanted.mask) {
    uint8_t* mask = w.mask.reserve(static_cast<size_t>(rows * cols));
    quiet.clear();
    const CPLErr error = dataset(w, quiet)
                             .GetRasterBand(wanted.channels.front())
                             ->GetMaskBand()
                             ->RasterIO(GF_Read, static_cast<int>(need.col0), static_cast<int>(need.row0),
                                        static_cast<int>(cols), static_cast<int>(rows), mask, static_cast<int>(cols),
                                        static_cast<int>(rows), GDT_Byte, 0, 0, nullptr);
    if (error != CE_None || !quiet.error().empty())
      throw std::invalid_argument(path_ + ": cannot decode the mask of rows " + std::to_string(need.row0) + " to " +
                                  std::to_string(need.row1) + " (damaged?): " + quiet.error());
    clear_where_masked(mask, rows * cols, valid);
  }
  w.pixels.valid = valid;
}

// For how many threads there is something to do: copies out of the cache are too short to start one for.
int64_t Layer::work(const Visits& visits, const Selection& wanted, int64_t tasks) const {
  constexpr int64_t kFew = 64;
  if (!tiff_ || !cache_ || visits.pieces() > kFew) return tasks;
  int64_t missing = 0;
  for (int64_t p = 0; p < visits.pieces(); ++p)
    for (const int64_t plane : planes_of(*tiff_, wanted)) missing += cache_->holds(key(visits.piece(p), plane)) ? 0 : 1;
  return std::max<int64_t>(1, std::min(tasks, missing));
}

void Layer::decode(const Visits& visits, const Selection& wanted, int threads, Counts& counts, const Use& use) {
  // Small pieces go to a thread several at a time, so that their bytes are read together.
  const int64_t pieces = visits.pieces();
  const int64_t group = tiff_ ? std::max<int64_t>(1, 65536 / (piece_rows_ * piece_cols_)) : 1;
  const int64_t tasks = (pieces + group - 1) / group;
  const int workers = sequential(description_.driver)
                          ? 1
                          : static_cast<int>(std::min<int64_t>(thread_count(threads), work(visits, wanted, tasks)));
  // What a call larger than the cache reads would only push out what is in it.
  bool keep = false;
  if (tiff_ && cache_ && tiff_->compressed()) {
    const auto bytes = static_cast<size_t>(piece_rows_ * piece_cols_ * tiff_->samples() * tiff_->value_bytes());
    keep = bytes * planes_of(*tiff_, wanted).size() <=
           cache_->capacity() / static_cast<size_t>(std::max<int64_t>(1, pieces));
  }
  std::atomic<int64_t> next{0};
  parallel(workers, workers, [&](int64_t first, int64_t last) {
    Quiet quiet;
    for (int64_t worker = first; worker < last; ++worker) {
      auto w = workers_->take();
      if (tiff_ && !w->reader) w->reader = std::make_unique<Tiff::Reader>(*tiff_);
      try {
        for (int64_t task = next++; task < tasks; task = next++) {
          const int64_t begin = task * group, end = std::min(pieces, begin + group);
          if (tiff_) find(*w, visits, begin, end, wanted, keep);
          for (int64_t p = begin; p < end; ++p) {
            const Rect need = visits.need(p);
            if (!tiff_ || !decode_tiff(*w, visits.piece(p), need, static_cast<size_t>(p - begin), wanted, keep, counts))
              decode_gdal(*w, quiet, need, wanted, counts);
            mark(*w, quiet, need, wanted);
            use(w->pixels, p, static_cast<int>(worker));
          }
          w->found.clear();
        }
      } catch (...) {
        next = tasks;  // the others need not go on
        throw;
      }
      workers_->give(std::move(w));
    }
  });
}

}  // namespace rvk
