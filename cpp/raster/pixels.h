// Moving decoded pixels to where they are wanted: rows out of one layout into another, and which pixels hold data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "raster/visits.h"

namespace rvk {

// Decoded pixels of one raster. Value (r, c) of a channel lies at its `first` + (r * row_step + c * pixel_step) values,
// (0, 0) being the corner of `at`.
struct Pixels {
  Rect at;
  std::vector<const uint8_t*> first;  // per channel; addresses of values
  int64_t pixel_step = 1, row_step = 1;
  const uint8_t* valid = nullptr;  // (rows, cols) of `at`, 1 or 0; null: all are data
};

// Called with the pixels of one piece of what is read, its number, and the number of the thread that calls.
using Use = std::function<void(const Pixels& pixels, int64_t piece, int worker)>;

// A copy of rectangles of `pixels` into arrays of other steps. Up to 16 bytes behind the source's last value are read.
class PixelCopy {
 public:
  // size      bytes of a value: 1, 2 or 4
  // offsets   per channel, in values from the target's first: where its value of a pixel goes
  // stream    write past the caches: for targets larger than they are. Call stream_fence() when all is written
  PixelCopy(const Pixels& pixels, int size, const std::vector<int64_t>& offsets, int64_t pixel_step, int64_t row_step,
            bool stream);

  // `part` of the raster, which lies in pixels.at, to the target whose first value is at `to`.
  void operator()(const Rect& part, uint8_t* to) const;

 private:
  enum class Way {
    whole,   // pixels as they are
    planes,  // channels that are planes on both sides
    split,   // pixels to planes
    choose,  // pixels to pixels of other channels, or in another order
    join,    // planes to pixels
    single,  // value by value
  };
  static constexpr int64_t kVector = 16;

  void split_row(const uint8_t* from, uint8_t* to, int64_t count) const;

  const Pixels& pixels_;
  int64_t size_;
  const std::vector<int64_t>& offsets_;
  int64_t pixel_step_, row_step_;
  bool stream_;
  Way way_ = Way::single;
  uint8_t shuffle_[kVector];  // `choose`: which byte of a vector of source pixels goes where
};

// memcpy, past the caches when `stream`.
void copy_bytes(uint8_t* to, const uint8_t* from, size_t size, bool stream);
// Orders streamed writes before everything that follows.
void stream_fence();

// What a channel's values say about data. Tests values as type T.
template <typename T>
struct NoData {
  T value;   // this one is none; NaN, too
  bool has;  // whether there is such a value
};

// valid (rows, cols) of pixels.at: 1 where some of the first `channels` channels holds data, else 0.
template <typename T>
void mark_data(const Pixels& pixels, const std::vector<NoData<T>>& nodata, uint8_t* valid);

// valid = 0 where the channel is 0.
template <typename T>
void clear_where_zero(const Pixels& pixels, size_t channel, uint8_t* valid);

// Where `part` of pixels.at has data, to rows of `valid` that are row_step apart: set (past the caches when `stream`),
// or without `set` only cleared.
void copy_valid(const Pixels& pixels, const Rect& part, bool set, uint8_t* valid, int64_t row_step, bool stream);

// valid = valid and mask, (rows, cols) each, of `count` values.
void clear_where_masked(const uint8_t* mask, int64_t count, uint8_t* valid);

}  // namespace rvk
