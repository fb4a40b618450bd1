#include "ops/normalize.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace rvk {

void normalize(const Pixels& images, int64_t n, int64_t pixels, int64_t bands, const float* mean, const float* inverse,
               bool planar, void* out, PixelType out_type, int threads) {
  // Bytes become their results by a table, and these are the output as they are when it is float32 in planes.
  const bool bytes = images.type == PixelType::u8;
  const bool by_table = bytes && out_type == PixelType::f32 && (planar || bands == 1);
  std::vector<ByteTable> tables(static_cast<size_t>(bytes ? bands : 0));
  for (size_t b = 0; b < tables.size(); ++b) {
    for (int v = 0; v < 256; ++v)
      tables[b].values[v] = by_table ? (static_cast<float>(v) - mean[b]) * inverse[b] : static_cast<float>(v);
    tables[b].find_parts();
  }
  const int64_t size = value_size(out_type);
  const bool streamed = n * pixels * bands * size >= kStreamed;
  // A chunk of pixels that stays in the first-level cache from one loop to the next.
  const int64_t chunk = std::max<int64_t>(1, std::min<int64_t>(pixels, (by_table ? 8192 : 4096) / bands));
  const int64_t chunks = (pixels + chunk - 1) / chunk;
  parallel(
      n * chunks, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<float> split(static_cast<size_t>(by_table ? 0 : chunk * bands)), joined(split.size());
        const Planes planes{split.data(), chunk};
        for (int64_t i = begin; i < end; ++i) {
          const int64_t image = i / chunks * pixels * bands;
          const int64_t at = i % chunks * chunk;
          const int64_t count = std::min(chunk, pixels - at);
          const int64_t first = image + (planar ? at : at * bands), plane = planar ? pixels : 0;
          const uint8_t* from = images.at(image + at * bands);
          if (by_table) {
            split_row(from, images.type, count, bands, tables.data(), {static_cast<float*>(out) + first, plane},
                      streamed);
            continue;
          }
          split_row(from, images.type, count, bands, tables.data(), planes);
          if (streamed) {
            const int64_t joined_plane = planar ? chunk : 0;
            join_row(planes, count, bands, mean, inverse, joined.data(), out_type, 0, joined_plane);
            stream_row(joined.data(), joined_plane, count, bands, size, out, first, plane);
          } else {
            join_row(planes, count, bands, mean, inverse, out, out_type, first, plane);
          }
        }
        finish_streams();
      },
      32);
}

}  // namespace rvk
