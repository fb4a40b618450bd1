// Pixels between the pixels of a chip, along straight lines of exact coordinates.
//
// The centre of pixel (r, c) lies at y = r + 1/2, x = c + 1/2; coordinates are whole numbers of 2^-32 pixel.
// Bilinear: with y' = y - 1/2, x' = x - 1/2, the four pixels around, held at the edges, weighted along x and then along
// y with the fractions of x' and y' cut to 24 bits, in float32:  a + (b - a) * w.  Nearest: the pixel that holds (y,
// x).
#pragma once

#include <cstdint>
#include <vector>

#include "pixels.h"

namespace rvk {

constexpr int64_t kOne = int64_t{1} << 32;  // one pixel
constexpr int64_t kHalf = kOne / 2;

// Where the pixels of one output row lie in the source: at pixel c, (y + c * dy, x + c * dx). Those with
// begin <= c < end are inside: 0 <= y < rows and 0 <= x < cols.
struct Line {
  int64_t y, dy, x, dx;
  int64_t begin, end;
};

// Shrinks [begin, end) to the c with 0 <= start + c * step < limit.
void narrow(int64_t start, int64_t step, int64_t limit, int64_t& begin, int64_t& end);

// The part of a chip that pixels on some lines lie between, with one more pixel on each side: the chip's own, or its
// edge pixel again. So each pixel has the four around it at the same distances, and none is outside of `data`.
class Patch {
 public:
  // From interleaved pixels (rows, cols, bands) at `chip`: what the inside pixels of out_rows x out_cols need, whose
  // coordinates are y = map[0] + r * map[1] + c * map[2] and x = map[3] + r * map[4] + c * map[5].
  void take(const uint8_t* chip, PixelType type, int64_t rows, int64_t cols, int64_t bands, const int64_t* map,
            int64_t out_rows, int64_t out_cols);

  PixelType type() const { return type_; }
  int64_t bands() const { return bands_; }
  int64_t row_step() const { return row_step_; }  // in values
  int64_t row() const { return row_; }            // of the chip, of the first pixel
  int64_t col() const { return col_; }
  const uint8_t* data() const { return data_.data(); }

 private:
  PixelType type_ = PixelType::u8;
  int64_t bands_ = 0, row_step_ = 0, row_ = 0, col_ = 0;
  std::vector<uint8_t> data_;
};

// Scratch for one row: offsets into a patch or a chip, weights of the right and the lower pixels, the four values; room
// for 15 pixels more.
struct Taps {
  std::vector<int32_t> at;
  std::vector<float> x, y, corner[4];
  explicit Taps(int64_t cols);
};

// Pixels [line.begin, line.end) into the planes, which have room for 15 pixels more behind them.
void bilinear(const Patch& patch, const Line& line, Taps& taps, const Planes& planes);

// to[c] for line.begin <= c < line.end, from labels (rows, cols).
void nearest(const uint8_t* labels, int64_t cols, const Line& line, Taps& taps, uint8_t* to);

}  // namespace rvk
