// Pixels in memory, and rows of them on their way: interleaved values of any type -> planes of float32 (split_row) ->
// scaled values of any type, interleaved or planar (join_row). In between, band b of pixel c is planes[b * stride + c].
#pragma once

#include <cstdint>

namespace rvk {

// The type of one value. bf16 is the upper half of a float32; it is only ever written.
enum class PixelType { u8, u16, i16, f32, bf16 };

int64_t value_size(PixelType type);

struct Pixels {
  const void* data;
  PixelType type;

  const uint8_t* at(int64_t value) const { return static_cast<const uint8_t*>(data) + value * value_size(type); }
};

struct Planes {
  float* data;
  int64_t stride;

  float* operator[](int64_t band) const { return data + band * stride; }
};

// A float32 for each value of a byte. `parts` are the four bytes of each, least first, for byte shuffles.
struct ByteTable {
  alignas(64) float values[256];
  alignas(64) uint8_t parts[4][256];

  void find_parts();
};

// Writes of so many bytes and more should go past the caches: they would not stay there, and a cache line that is
// written whole need not be read first. A thread that wrote `streamed` calls finish_streams() when it is done.
constexpr int64_t kStreamed = 1 << 24;
void finish_streams();

// planes[b][c] = pixel c, band b, for c < count, from interleaved values at `from`. Bytes go through tables[b].
void split_row(const uint8_t* from, PixelType type, int64_t count, int64_t bands, const ByteTable* tables,
               const Planes& planes, bool streamed = false);

// Pixel c, band b of the image at `out` becomes (planes[b][c] - mean[b]) * inverse[b], for c < count, in float32, then
// rounded to nearest even; integers are held to their range first. It stands at value first + c * bands + b, or, when
// plane > 0, at first + b * plane + c. A NaN becomes any integer.
void join_row(const Planes& planes, int64_t count, int64_t bands, const float* mean, const float* inverse, void* out,
              PixelType type, int64_t first, int64_t plane);

// From bytes to bytes: what split_row, a 3 x 3 matrix on the first three bands, m[0] * r + m[1] * g + m[2] * b and so
// on, and join_row of mean 0 and inverse 1 make of interleaved pixels, in one pass. False, and nothing is done, where
// this machine has no faster way than these three, for so many bands.
bool turn_bytes(const uint8_t* from, int64_t count, int64_t bands, const ByteTable* tables, const float* matrix,
                uint8_t* to);

// A joined row of values of `size` bytes, with planes `from_plane` values apart or interleaved (0), to its place, as
// join_row's `first` and `plane` say; streamed.
void stream_row(const void* from, int64_t from_plane, int64_t count, int64_t bands, int64_t size, void* out,
                int64_t first, int64_t plane);

// join_row's float32 in planes, streamed without a joined row in between. False, and nothing is done, where this
// machine has no way to do so.
bool stream_planes(const Planes& planes, int64_t count, int64_t bands, const float* mean, const float* inverse,
                   float* to, int64_t plane);

// to[r * to_step + c * size ...] = from[r * row_step + c * col_step ...] for r < rows and c < cols: pixels of `size`
// bytes. Steps are in bytes, of either sign.
void move_pixels(const uint8_t* from, int64_t row_step, int64_t col_step, int64_t rows, int64_t cols, int64_t size,
                 uint8_t* to, int64_t to_step);

}  // namespace rvk
