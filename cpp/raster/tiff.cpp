#include "raster/tiff.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "raster/lzw.h"
#include "raster/predictor.h"

#if defined(RVK_LIBDEFLATE)
#include <libdeflate.h>
#endif
#if defined(RVK_ZSTD)
#include <zstd.h>
#endif

namespace rvk {

namespace {

constexpr int kNone = 1, kLzw = 5, kDeflate = 8, kOldDeflate = 32946, kZstd = 50000;
constexpr uint64_t kMaxEntries = 4096, kMaxDirectories = 1024;
constexpr int64_t kPiecePixels = 65536;
constexpr int64_t kMaxBlockBytes = INT32_MAX;

enum Tag : uint16_t {
  kSubfileType = 254,
  kWidth = 256,
  kLength = 257,
  kBits = 258,
  kCompression = 259,
  kPhotometric = 262,
  kFillOrder = 266,
  kStripOffsets = 273,
  kSamples = 277,
  kRowsPerStrip = 278,
  kStripSizes = 279,
  kPlanar = 284,
  kPredictor = 317,
  kTileWidth = 322,
  kTileLength = 323,
  kTileOffsets = 324,
  kTileSizes = 325,
  kSampleFormat = 339,
};

bool decodes(int compression) {
#if defined(RVK_LIBDEFLATE)
  if (compression == kDeflate || compression == kOldDeflate) return true;
#endif
#if defined(RVK_ZSTD)
  if (compression == kZstd) return true;
#endif
  return compression == kNone || compression == kLzw;
}

// Whole numbers of 1, 2, 4 or 8 bytes in the file's byte order.
uint64_t number(const uint8_t* bytes, size_t size, bool big) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= uint64_t{bytes[big ? size - 1 - i : i]} << (8 * i);
  return value;
}

// A directory's fields: what read_directory needs of them, no more.
class Directory {
 public:
  // From the directory at `offset`; sets it to the next one's, 0 for none. False when it is damaged.
  bool read(File& file, bool big_endian, bool big_tiff, uint64_t& offset) {
    fields_.clear();
    big_endian_ = big_endian;
    const size_t count_size = big_tiff ? 8 : 2, entry_size = big_tiff ? 20 : 12, place_size = big_tiff ? 8 : 4;
    uint8_t head[8];
    if (!file.read(offset, count_size, head)) return false;
    const uint64_t count = number(head, count_size, big_endian);
    if (count == 0 || count > kMaxEntries) return false;
    std::vector<uint8_t> entries(static_cast<size_t>(count) * entry_size);
    if (!file.read(offset + count_size, entries.size(), entries.data())) return false;
    int last = -1;
    for (uint64_t e = 0; e < count; ++e) {
      const uint8_t* entry = entries.data() + e * entry_size;
      const auto tag = static_cast<uint16_t>(number(entry, 2, big_endian));
      if (tag <= last) return false;  // not sorted, or one tag twice: which of them holds is for libtiff to say
      last = tag;
      const uint64_t type = number(entry + 2, 2, big_endian);
      Field field;
      field.count = number(entry + 4, place_size, big_endian);
      // BYTE, SHORT, LONG, LONG8, as files have it. Of any other type a number cannot be had from here, which leaves
      // the file to GDAL if it is needed: libtiff takes signed ones, too.
      field.size = type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : type == 16 ? 8 : 0;
      const uint8_t* place = entry + 4 + place_size;
      if (field.size != 0 && field.count <= place_size / field.size) {
        std::memcpy(field.bytes, place, place_size);
        field.inside = true;
      } else {
        field.offset = number(place, place_size, big_endian);
      }
      fields_.emplace(tag, field);
    }
    uint8_t next[8];
    offset += count_size + entries.size();
    if (!file.read(offset, place_size, next)) return false;
    offset = number(next, place_size, big_endian);
    return true;
  }

  bool has(Tag tag) const { return fields_.count(tag) != 0; }

  // The field's first `count` numbers. False when there are fewer, or they are not in the file, or of another type.
  bool numbers(File& file, Tag tag, uint64_t count, std::vector<uint64_t>& values) const {
    const auto found = fields_.find(tag);
    if (found == fields_.end() || found->second.size == 0 || found->second.count < count) return false;
    const Field& field = found->second;
    if (count > file.size() / field.size + 8) return false;  // so that a damaged count asks for no memory
    std::vector<uint8_t> outside;
    const uint8_t* bytes = field.bytes;
    if (!field.inside) {
      outside.resize(static_cast<size_t>(count) * field.size);
      if (!file.read(field.offset, outside.size(), outside.data())) return false;
      bytes = outside.data();
    }
    values.resize(static_cast<size_t>(count));
    for (uint64_t i = 0; i < count; ++i) values[i] = number(bytes + i * field.size, field.size, big_endian_);
    return true;
  }

  // The one value that all of the field's numbers have, `otherwise` when there is no such field, -1 when they differ or
  // cannot be had.
  int64_t one(File& file, Tag tag, int64_t otherwise) const {
    const auto found = fields_.find(tag);
    if (found == fields_.end()) return otherwise;
    std::vector<uint64_t> values;
    if (found->second.count == 0 || found->second.count > 65535 || !numbers(file, tag, found->second.count, values) ||
        values[0] > uint64_t{INT64_MAX} ||
        std::any_of(values.begin(), values.end(), [&](uint64_t v) { return v != values[0]; }))
      return -1;
    return static_cast<int64_t>(values[0]);
  }

 private:
  struct Field {
    uint64_t count = 0, offset = 0;
    size_t size = 0;  // of a number; 0: of a type that is not read here
    bool inside = false;
    uint8_t bytes[8] = {};
  };
  bool big_endian_ = false;
  std::map<uint16_t, Field> fields_;
};

#if defined(RVK_ZSTD)
// The first `bytes` bytes of a frame, as a stream, which is how libtiff reads it: a damaged frame is refused here
// exactly where it is refused there (a window that asks for too much memory), and what follows the frame is left alone.
bool decode_zstd(ZSTD_DCtx* context, const uint8_t* data, size_t size, uint8_t* to, size_t bytes) {
  ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
  ZSTD_inBuffer in{data, size, 0};
  ZSTD_outBuffer out{to, bytes, 0};
  size_t left;
  do {
    left = ZSTD_decompressStream(context, &out, &in);
    if (ZSTD_isError(left)) return false;
  } while (left != 0 && in.pos < in.size && out.pos < out.size);
  return out.pos == out.size;
}
#endif

// The value of a pixel as it is stored.
bool stored_as(GDALDataType type, int64_t bits, int64_t format) {
  switch (type) {
    case GDT_Byte:
      return bits == 8 && (format == 1 || format == 2);
    case GDT_UInt16:
      return bits == 16 && format == 1;
    case GDT_Int16:
      return bits == 16 && format == 2;
    case GDT_UInt32:
      return bits == 32 && format == 1;
    case GDT_Int32:
      return bits == 32 && format == 2;
    case GDT_Float32:
      return bits == 32 && format == 3;
    case GDT_Float64:
      return bits == 64 && format == 3;
    default:
      return false;
  }
}

}  // namespace

std::vector<std::string> Tiff::codecs() {
  std::vector<std::string> names{"none", "lzw"};
  if (decodes(kDeflate)) names.push_back("deflate");
  if (decodes(kZstd)) names.push_back("zstd");
  return names;
}

std::unique_ptr<Tiff> Tiff::open(const std::string& path, GDALDataset& dataset) {
  std::unique_ptr<Tiff> tiff(new Tiff);
  tiff->file_ = File::open(path);
  if (!tiff->file_ || !tiff->read_directory(dataset)) return nullptr;
  return tiff;
}

bool Tiff::read_directory(GDALDataset& dataset) {
  File& file = *file_;
  uint8_t head[16];
  if (!file.read(0, 8, head)) return false;
  const bool big_endian = head[0] == 'M';
  if (head[0] != head[1] || (head[0] != 'M' && head[0] != 'I')) return false;
  const uint64_t version = number(head + 2, 2, big_endian);
  const bool big_tiff = version == 43;
  if (version != 42 && version != 43) return false;
  if (big_tiff && (!file.read(0, 16, head) || number(head + 4, 2, big_endian) != 8)) return false;
  uint64_t offset = big_tiff ? number(head + 8, 8, big_endian) : number(head + 4, 4, big_endian);
  swapped_ = big_endian != (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);

  Directory directory;
  for (uint64_t d = 0; offset != 0 && d < kMaxDirectories; ++d) {
    if (!directory.read(file, big_endian, big_tiff, offset)) return false;
    // The image itself comes first; its overviews are marked as reduced, and masks as masks.
    const int64_t subfile = directory.one(file, kSubfileType, 0);
    if (subfile < 0) return false;
    if ((subfile & 4) != 0 || (d > 0 && (subfile & 1) == 0)) continue;
    rows_ = directory.one(file, kLength, -1);
    cols_ = directory.one(file, kWidth, -1);
    if (rows_ != dataset.GetRasterYSize() || cols_ != dataset.GetRasterXSize()) continue;

    const int64_t bands = directory.one(file, kSamples, 1), planar = directory.one(file, kPlanar, 1);
    const int64_t bits = directory.one(file, kBits, 1), format = directory.one(file, kSampleFormat, 1);
    const int64_t photometric = directory.one(file, kPhotometric, -1);
    compression_ = static_cast<int>(directory.one(file, kCompression, 1));
    predictor_ = compression_ == kNone ? 1 : static_cast<int>(directory.one(file, kPredictor, 1));
    // Up to 5: grey either way, RGB, palette, transparency, CMYK. Behind them are colours that GDAL converts.
    if (!decodes(compression_) || photometric < 0 || photometric > 5 || directory.one(file, kFillOrder, 1) != 1 ||
        bands != dataset.GetRasterCount() || bands > 65535 || (planar != 1 && planar != 2))
      return false;
    for (int b = 1; b <= dataset.GetRasterCount(); ++b)
      if (!stored_as(dataset.GetRasterBand(b)->GetRasterDataType(), bits, format)) return false;
    bytes_ = bits / 8;
    if (predictor_ < 1 || predictor_ > 3 || (predictor_ == 3 && format != 3)) return false;
    planes_ = planar == 2 ? bands : 1;
    samples_ = planar == 2 ? 1 : bands;

    tiled_ = directory.has(kTileWidth);
    block_cols_ = tiled_ ? directory.one(file, kTileWidth, -1) : cols_;
    block_rows_ = tiled_ ? directory.one(file, kTileLength, -1) : directory.one(file, kRowsPerStrip, rows_);
    if (block_rows_ <= 0 || block_cols_ <= 0 || block_cols_ > INT32_MAX) return false;
    if (!tiled_) block_rows_ = std::min(block_rows_, rows_);
    if (block_rows_ > kMaxBlockBytes / (block_cols_ * samples_ * bytes_)) return false;
    across_ = (cols_ + block_cols_ - 1) / block_cols_;
    down_ = (rows_ + block_rows_ - 1) / block_rows_;
    if (static_cast<uint64_t>(across_ * down_) > file.size()) return false;  // their table alone would be larger
    const auto blocks = static_cast<uint64_t>(across_ * down_) * static_cast<uint64_t>(planes_);
    if (!directory.numbers(file, tiled_ ? kTileOffsets : kStripOffsets, blocks, offsets_) ||
        !directory.numbers(file, tiled_ ? kTileSizes : kStripSizes, blocks, sizes_))
      return false;

    piece_cols_ = block_cols_;
    piece_rows_ = block_rows_;
    if (!tiled_) {
      const int64_t most = std::max<int64_t>(1, kPiecePixels / cols_);
      if (block_rows_ < most) piece_rows_ = most / block_rows_ * block_rows_;
      if (!compressed()) piece_rows_ = most;
    }
    for (int b = 1; b <= dataset.GetRasterCount(); ++b) {
      GDALRasterBand* band = dataset.GetRasterBand(b);
      int has = FALSE;
      double value = band->GetNoDataValue(&has);
      if (!has) value = 0;
      empty_.resize(empty_.size() + static_cast<size_t>(bytes_));
      GDALCopyWords(&value, GDT_Float64, 0, empty_.data() + empty_.size() - bytes_, band->GetRasterDataType(), 0, 1);
    }
    return true;
  }
  return false;
}

Rect Tiff::covering(const Rect& need) const {
  Rect all = need;
  if (tiled_) {
    all.col0 = need.col0 / block_cols_ * block_cols_;
    all.col1 = all.col0 + block_cols_;
  } else if (compressed() || (need.col1 - need.col0) * 4 > cols_) {
    all.col0 = 0;
    all.col1 = cols_;
  }
  if (compressed()) {
    all.row0 = need.row0 / block_rows_ * block_rows_;
    all.row1 = (need.row1 + block_rows_ - 1) / block_rows_ * block_rows_;
    if (!tiled_) all.row1 = std::min(all.row1, rows_);
  }
  return all;
}

int64_t Tiff::blocks_in(const Rect& covering) const {
  return (covering.row1 + block_rows_ - 1) / block_rows_ - covering.row0 / block_rows_;
}

// `pixels` pixels of a plane that the file does not hold.
void Tiff::fill(uint8_t* to, int64_t pixels, int64_t plane) const {
  const auto size = static_cast<size_t>(samples_ * bytes_);
  const uint8_t* pixel = empty_.data() + static_cast<size_t>(plane * bytes_) * (planes_ > 1 ? 1 : 0);
  if (std::all_of(pixel, pixel + size, [&](uint8_t byte) { return byte == pixel[0]; })) {
    std::memset(to, pixel[0], static_cast<size_t>(pixels) * size);
    return;
  }
  for (int64_t i = 0; i < pixels; ++i) std::memcpy(to + static_cast<size_t>(i) * size, pixel, size);
}

struct Tiff::Reader::Codecs {
#if defined(RVK_LIBDEFLATE)
  struct FreeDeflate {
    void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
  };
  std::unique_ptr<libdeflate_decompressor, FreeDeflate> deflate{libdeflate_alloc_decompressor()};
#endif
#if defined(RVK_ZSTD)
  struct FreeZstd {
    void operator()(ZSTD_DCtx* d) const { ZSTD_freeDCtx(d); }
  };
  std::unique_ptr<ZSTD_DCtx, FreeZstd> zstd{ZSTD_createDCtx()};
#endif
};

Tiff::Reader::Reader(Tiff& tiff) : tiff_(tiff), codecs_(new Codecs) {}
Tiff::Reader::~Reader() = default;

// Index of the first block of a covering rectangle, and how many there are below each other.
void Tiff::Reader::blocks(const Rect& covering, int64_t plane, int64_t& first, int64_t& count) const {
  const Tiff& t = tiff_;
  first = (plane * t.down_ + covering.row0 / t.block_rows_) * t.across_ + covering.col0 / t.block_cols_;
  count = t.blocks_in(covering);
}

void Tiff::Reader::announce(const std::vector<Wanted>& wanted) {
  ahead_begin_ = ahead_end_ = 0;
  if (!tiff_.compressed()) return;
  uint64_t begin = UINT64_MAX, end = 0, sum = 0;
  for (const Wanted& w : wanted) {
    int64_t first, count;
    blocks(w.covering, w.plane, first, count);
    for (int64_t b = first; b < first + count * tiff_.across_; b += tiff_.across_) {
      const uint64_t offset = tiff_.offsets_[b], size = tiff_.sizes_[b];
      if (size == 0 || offset > tiff_.file_->size() || size > tiff_.file_->size() - offset) continue;
      begin = std::min(begin, offset);
      end = std::max(end, offset + size);
      sum += size;
    }
  }
  // A gap that is read, too, costs less than another read.
  if (sum == 0 || end - begin > sum + sum / 4 + (uint64_t{1} << 16) || end - begin > std::max<uint64_t>(kAhead, sum))
    return;
  if (!tiff_.file_->read(begin, static_cast<size_t>(end - begin), ahead_.reserve(static_cast<size_t>(end - begin))))
    return;
  ahead_begin_ = begin;
  ahead_end_ = end;
}

// One compressed block of `rows` x `cols` pixels.
bool Tiff::Reader::decode_block(int64_t index, int64_t rows, int64_t cols, uint8_t* to) {
  const Tiff& t = tiff_;
  const uint64_t offset = t.offsets_[index], size = t.sizes_[index];
  const auto bytes = static_cast<size_t>(rows * cols * t.samples_ * t.bytes_);
  if (size == 0) {
    t.fill(to, rows * cols, index / (t.across_ * t.down_));
    return true;
  }
  const uint8_t* data;
  if (offset >= ahead_begin_ && offset < ahead_end_ && size <= ahead_end_ - offset) {
    data = ahead_.data() + (offset - ahead_begin_);
  } else {
    if (size > t.file_->size()) return false;
    uint8_t* own = single_.reserve(static_cast<size_t>(size));
    if (!t.file_->read(offset, static_cast<size_t>(size), own)) return false;
    data = own;
  }
  switch (t.compression_) {
#if defined(RVK_LIBDEFLATE)
    case kDeflate:
    case kOldDeflate:
      if (libdeflate_zlib_decompress(codecs_->deflate.get(), data, static_cast<size_t>(size), to, bytes, nullptr) !=
          LIBDEFLATE_SUCCESS)
        return false;
      break;
#endif
#if defined(RVK_ZSTD)
    case kZstd:
      if (!decode_zstd(codecs_->zstd.get(), data, static_cast<size_t>(size), to, bytes)) return false;
      break;
#endif
    default:
      if (!decode_lzw(data, static_cast<size_t>(size), to, bytes)) return false;
  }
  const int value = static_cast<int>(t.bytes_);
  if (t.predictor_ == 3) {
    undo_float_planes(to, rows, cols, t.samples_, value,
                      scratch_.reserve(static_cast<size_t>(cols * t.samples_ * t.bytes_)));
  } else {
    if (t.swapped_) swap_bytes(to, rows * cols * t.samples_, value);
    if (t.predictor_ == 2) undo_differences(to, rows, cols, t.samples_, value);
  }
  return true;
}

// Uncompressed rows, or parts of them, with one read for all that follow each other in the file.
bool Tiff::Reader::read_rows(const Rect& covering, int64_t plane, uint8_t* to) {
  const Tiff& t = tiff_;
  const auto pixel = static_cast<uint64_t>(t.samples_ * t.bytes_);
  const auto row_bytes = static_cast<uint64_t>(t.row_bytes());
  const auto length = static_cast<uint64_t>(covering.col1 - covering.col0) * pixel;
  const uint64_t inset = static_cast<uint64_t>(covering.col0 % t.block_cols_) * pixel;
  const int64_t column = covering.col0 / t.block_cols_;
  uint64_t begin = 0, end = 0;  // what is to be read next, to `to`
  const auto flush = [&] {
    const bool read = end == begin || t.file_->read(begin, static_cast<size_t>(end - begin), to);
    if (t.swapped_) swap_bytes(to, static_cast<int64_t>(end - begin) / t.bytes_, static_cast<int>(t.bytes_));
    to += end - begin;
    begin = end = 0;
    return read;
  };
  for (int64_t row = covering.row0; row < covering.row1; ++row) {
    const int64_t index = (plane * t.down_ + row / t.block_rows_) * t.across_ + column;
    const int64_t inside = row % t.block_rows_;
    if (t.sizes_[index] == 0) {
      if (!flush()) return false;
      t.fill(to, covering.col1 - covering.col0, plane);
      to += length;
      continue;
    }
    const uint64_t first = static_cast<uint64_t>(inside) * row_bytes + inset;
    // Even if these rows are there: GDAL refuses such a block. Only the last strip may end with the image.
    const int64_t held = t.tiled_ ? t.block_rows_ : std::min(t.block_rows_, t.rows_ - (row - inside));
    if (t.sizes_[index] < static_cast<uint64_t>(held) * row_bytes) return false;
    if (t.offsets_[index] > t.file_->size() || t.sizes_[index] > t.file_->size() - t.offsets_[index])
      return false;  // even if these rows do not: GDAL refuses such a block
    const uint64_t at = t.offsets_[index] + first;
    if (end != begin && at == end) {
      end += length;
    } else {
      if (!flush()) return false;
      begin = at;
      end = at + length;
    }
  }
  return flush();
}

bool Tiff::Reader::decode(const Rect& covering, int64_t plane, uint8_t* to) {
  const Tiff& t = tiff_;
  const int64_t rows = covering.row1 - covering.row0, cols = covering.col1 - covering.col0;
  if (!t.compressed()) return read_rows(covering, plane, to);
  int64_t first, count;
  blocks(covering, plane, first, count);
  for (int64_t b = 0; b < count; ++b) {
    const int64_t row = b * t.block_rows_;
    if (!decode_block(first + b * t.across_, std::min(t.block_rows_, rows - row), cols,
                      to + row * cols * t.samples_ * t.bytes_))
      return false;
  }
  return true;
}

}  // namespace rvk
