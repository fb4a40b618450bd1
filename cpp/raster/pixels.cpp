#include "raster/pixels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rvk {

namespace {

#if defined(__x86_64__)

RVK_V4 void stream_v4(uint8_t* to, const uint8_t* from, size_t lines) {
  for (size_t i = 0; i < lines; ++i)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + 64 * i), _mm512_loadu_si512(from + 64 * i));
}

void stream_lines(uint8_t* to, const uint8_t* from, size_t lines) {
  if (isa() >= Isa::v4) return stream_v4(to, from, lines);
  for (size_t i = 0; i < 4 * lines; ++i)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + 16 * i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16 * i)));
}

// `count` pixels of `in` bytes to pixels of `out` bytes, byte b of each being byte shuffle[b] of its source.
RVK_V3 void choose_v3(const uint8_t* from, int64_t in, uint8_t* to, int64_t out, const uint8_t* shuffle,
                      int64_t count) {
  const __m128i places = _mm_loadu_si128(reinterpret_cast<const __m128i*>(shuffle));
  const int64_t each = std::min(16 / in, 16 / out);
  int64_t i = 0;
  for (; (count - i) * out >= 16; i += each) {  // a whole vector fits; what it writes too much is written again
    const __m128i pixels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * in));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * out), _mm_shuffle_epi8(pixels, places));
  }
  for (; i < count; ++i)
    for (int64_t b = 0; b < out; ++b) to[i * out + b] = from[i * in + shuffle[b]];
}

#endif

// The first value of every word. (The low one: these machines are little-endian.)
template <typename Word, typename T>
void narrow(const uint8_t* from, uint8_t* to, int64_t count) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) {
      Word word;
      std::memcpy(&word, from + i * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
      const T value = static_cast<T>(word);
      std::memcpy(to + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
    }
  });
}

template <typename T, int kChannels>
void join_row(const uint8_t* const* from, uint8_t* to_bytes, int64_t count) {
  const T* sources[kChannels];
  for (int c = 0; c < kChannels; ++c) sources[c] = reinterpret_cast<const T*>(from[c]);
  T* to = reinterpret_cast<T*>(to_bytes);
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i)
      for (int c = 0; c < kChannels; ++c) to[i * kChannels + c] = sources[c][i];
  });
}

template <typename T>
void single_row(const uint8_t* from_bytes, int64_t from_step, uint8_t* to_bytes, int64_t to_step, int64_t count) {
  const T* from = reinterpret_cast<const T*>(from_bytes);
  T* to = reinterpret_cast<T*>(to_bytes);
  for (int64_t i = 0; i < count; ++i) to[i * to_step] = from[i * from_step];
}

// f(T{}) for the unsigned type of `size` bytes.
template <typename F>
void with_size(int64_t size, F&& f) {
  if (size == 1) f(uint8_t{});
  if (size == 2) f(uint16_t{});
  if (size == 4) f(uint32_t{});
}

}  // namespace

void copy_bytes(uint8_t* to, const uint8_t* from, size_t size, bool stream) {
#if defined(__x86_64__)
  if (stream && size >= 128) {
    const size_t head = (64 - reinterpret_cast<uintptr_t>(to) % 64) % 64;
    const size_t lines = (size - head) / 64, done = head + 64 * lines;
    if (head) std::memcpy(to, from, head);
    stream_lines(to + head, from + head, lines);
    if (done < size) std::memcpy(to + done, from + done, size - done);
    return;
  }
#endif
  (void)stream;
  std::memcpy(to, from, size);
}

void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

PixelCopy::PixelCopy(const Pixels& pixels, int size, const std::vector<int64_t>& offsets, int64_t pixel_step,
                     int64_t row_step, bool stream)
    : pixels_(pixels), size_(size), offsets_(offsets), pixel_step_(pixel_step), row_step_(row_step), stream_(stream) {
  const auto count = static_cast<int64_t>(offsets.size());
  const int64_t in_bytes = pixels.pixel_step * size, out_bytes = count * size;
  const uint8_t* lowest = *std::min_element(pixels.first.begin(), pixels.first.begin() + count);
  bool side_by_side = pixels.pixel_step > 1, filled = pixel_step == count, same = side_by_side && filled;
  std::vector<char> seen(offsets.size(), 0);
  for (int64_t c = 0; c < count; ++c) {
    const int64_t place = pixels.first[c] - lowest;  // in its pixel
    side_by_side = side_by_side && place < in_bytes;
    same = same && place == offsets[c] * size;
    filled = filled && offsets[c] >= 0 && offsets[c] < count && !seen[offsets[c]]++;
  }
  same = same && pixels.pixel_step == count;
  if (pixels.pixel_step == 1 && pixel_step == 1) {
    way_ = Way::planes;
  } else if (same) {
    way_ = Way::whole;
  } else if (pixel_step == 1) {
    way_ = Way::split;
  } else if (pixels.pixel_step == 1 && filled && count <= 4) {
    way_ = Way::join;
  } else if (side_by_side && filled && in_bytes <= kVector && out_bytes <= kVector && isa() >= Isa::v3) {
    way_ = Way::choose;
    const int64_t each = std::min(kVector / in_bytes, kVector / out_bytes);
    std::memset(shuffle_, 0, sizeof(shuffle_));
    for (int64_t i = 0; i < each; ++i)
      for (int64_t c = 0; c < count; ++c)
        for (int64_t b = 0; b < size; ++b)
          shuffle_[i * out_bytes + offsets[c] * size + b] =
              static_cast<uint8_t>(i * in_bytes + (pixels.first[c] - lowest) + b);
  }
}

void PixelCopy::split_row(const uint8_t* from, uint8_t* to, int64_t count) const {
  const int64_t in_bytes = pixels_.pixel_step * size_;
  if (size_ == 1 && in_bytes == 2) return narrow<uint16_t, uint8_t>(from, to, count);
  if (size_ == 1 && in_bytes == 4) return narrow<uint32_t, uint8_t>(from, to, count);
  if (size_ == 2 && in_bytes == 4) return narrow<uint32_t, uint16_t>(from, to, count);
  if (size_ == 2 && in_bytes == 8) return narrow<uint64_t, uint16_t>(from, to, count);
  if (size_ == 4 && in_bytes == 8) return narrow<uint64_t, uint32_t>(from, to, count);
#if defined(__x86_64__)
  if (in_bytes <= kVector && isa() >= Isa::v3) {
    uint8_t shuffle[kVector] = {};
    for (int64_t i = 0; i < kVector / in_bytes; ++i)
      for (int64_t b = 0; b < size_; ++b) shuffle[i * size_ + b] = static_cast<uint8_t>(i * in_bytes + b);
    return choose_v3(from, in_bytes, to, size_, shuffle, count);
  }
#endif
  with_size(size_, [&](auto t) { single_row<decltype(t)>(from, pixels_.pixel_step, to, 1, count); });
}

void PixelCopy::operator()(const Rect& part, uint8_t* to) const {
  const int64_t cols = part.col1 - part.col0;
  const size_t channels = offsets_.size();
  const int64_t source =
      ((part.row0 - pixels_.at.row0) * pixels_.row_step + (part.col0 - pixels_.at.col0) * pixels_.pixel_step) * size_;
  std::vector<const uint8_t*> from(pixels_.first.begin(), pixels_.first.begin() + static_cast<int64_t>(channels));
  for (auto& first : from) first += source;
  const uint8_t* lowest = *std::min_element(from.begin(), from.end());
  for (int64_t row = part.row0; row < part.row1; ++row, to += row_step_ * size_) {
    switch (way_) {
      case Way::whole:
        copy_bytes(to, lowest, static_cast<size_t>(cols * pixel_step_ * size_), stream_);
        break;
      case Way::planes:
        for (size_t c = 0; c < channels; ++c)
          copy_bytes(to + offsets_[c] * size_, from[c], static_cast<size_t>(cols * size_), stream_);
        break;
      case Way::split:
        for (size_t c = 0; c < channels; ++c) split_row(from[c], to + offsets_[c] * size_, cols);
        break;
      case Way::choose:
#if defined(__x86_64__)
        choose_v3(lowest, pixels_.pixel_step * size_, to, pixel_step_ * size_, shuffle_, cols);
#endif
        break;
      case Way::join: {
        const uint8_t* in_order[4];
        for (size_t c = 0; c < channels; ++c) in_order[offsets_[c]] = from[c];
        with_size(size_, [&](auto t) {
          using T = decltype(t);
          if (channels == 2) join_row<T, 2>(in_order, to, cols);
          if (channels == 3) join_row<T, 3>(in_order, to, cols);
          if (channels == 4) join_row<T, 4>(in_order, to, cols);
        });
        break;
      }
      case Way::single:
        for (size_t c = 0; c < channels; ++c)
          with_size(size_, [&](auto t) {
            single_row<decltype(t)>(from[c], pixels_.pixel_step, to + offsets_[c] * size_, pixel_step_, cols);
          });
        break;
    }
    for (auto& first : from) first += pixels_.row_step * size_;
    lowest += pixels_.row_step * size_;
  }
}

namespace {

// Every channel of a pixel at once: `kChannels` values side by side.
template <typename T, int kChannels>
void mark_row(const T* row, const NoData<T>* nodata, int64_t cols, uint8_t* valid) {
  T none[kChannels];
  for (int c = 0; c < kChannels; ++c) none[c] = nodata[c].value;
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < cols; ++i) {
      bool data = false;
      for (int c = 0; c < kChannels; ++c) {
        const T value = row[i * kChannels + c];
        data |= (value == value) & (value != none[c]);
      }
      valid[i] = data ? 1 : 0;
    }
  });
}

template <typename T>
void mark_channel(const T* row, int64_t step, T none, int64_t cols, uint8_t* valid) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < cols; ++i) {
      const T value = row[i * step];
      valid[i] = static_cast<uint8_t>(valid[i] | ((value == value) & (value != none) ? 1 : 0));
    }
  });
}

}  // namespace

template <typename T>
void mark_data(const Pixels& pixels, const std::vector<NoData<T>>& nodata, uint8_t* valid) {
  const int64_t rows = pixels.at.row1 - pixels.at.row0, cols = pixels.at.col1 - pixels.at.col0;
  const size_t channels = nodata.size();
  std::vector<NoData<T>> none(nodata);
  for (auto& n : none) {
    if (n.has) continue;
    if constexpr (std::is_floating_point_v<T>) {
      n.value = std::numeric_limits<T>::quiet_NaN();  // no value equals it
    } else {
      std::memset(valid, 1, static_cast<size_t>(rows * cols));  // every value of this channel is data
      return;
    }
  }
  bool side_by_side = pixels.pixel_step == static_cast<int64_t>(channels);
  for (size_t c = 0; c < channels; ++c)
    side_by_side = side_by_side && pixels.first[c] == pixels.first[0] + c * sizeof(T);
  for (int64_t r = 0; r < rows; ++r, valid += cols) {
    const auto row = [&](size_t c) { return reinterpret_cast<const T*>(pixels.first[c]) + r * pixels.row_step; };
    if (side_by_side && channels == 1) {
      mark_row<T, 1>(row(0), none.data(), cols, valid);
    } else if (side_by_side && channels == 2) {
      mark_row<T, 2>(row(0), none.data(), cols, valid);
    } else if (side_by_side && channels == 3) {
      mark_row<T, 3>(row(0), none.data(), cols, valid);
    } else if (side_by_side && channels == 4) {
      mark_row<T, 4>(row(0), none.data(), cols, valid);
    } else {
      std::memset(valid, 0, static_cast<size_t>(cols));
      for (size_t c = 0; c < channels; ++c) mark_channel(row(c), pixels.pixel_step, none[c].value, cols, valid);
    }
  }
}

template <typename T>
void clear_where_zero(const Pixels& pixels, size_t channel, uint8_t* valid) {
  const int64_t rows = pixels.at.row1 - pixels.at.row0, cols = pixels.at.col1 - pixels.at.col0;
  const int64_t step = pixels.pixel_step;
  for (int64_t r = 0; r < rows; ++r, valid += cols) {
    const T* row = reinterpret_cast<const T*>(pixels.first[channel]) + r * pixels.row_step;
    dispatch([=]() RVK_INLINE {
      for (int64_t i = 0; i < cols; ++i) valid[i] = row[i * step] != T{0} ? valid[i] : uint8_t{0};
    });
  }
}

void clear_where_masked(const uint8_t* mask, int64_t count, uint8_t* valid) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) valid[i] = mask[i] != 0 ? valid[i] : uint8_t{0};
  });
}

template void mark_data(const Pixels&, const std::vector<NoData<uint8_t>>&, uint8_t*);
template void mark_data(const Pixels&, const std::vector<NoData<uint16_t>>&, uint8_t*);
template void mark_data(const Pixels&, const std::vector<NoData<int16_t>>&, uint8_t*);
template void mark_data(const Pixels&, const std::vector<NoData<float>>&, uint8_t*);
template void clear_where_zero<uint8_t>(const Pixels&, size_t, uint8_t*);
template void clear_where_zero<uint16_t>(const Pixels&, size_t, uint8_t*);
template void clear_where_zero<int16_t>(const Pixels&, size_t, uint8_t*);
template void clear_where_zero<float>(const Pixels&, size_t, uint8_t*);

void copy_valid(const Pixels& pixels, const Rect& part, bool set, uint8_t* valid, int64_t row_step, bool stream) {
  const int64_t cols = part.col1 - part.col0, width = pixels.at.col1 - pixels.at.col0;
  for (int64_t row = part.row0; row < part.row1; ++row, valid += row_step) {
    const uint8_t* from =
        pixels.valid ? pixels.valid + (row - pixels.at.row0) * width + part.col0 - pixels.at.col0 : nullptr;
    if (!set && from) clear_where_masked(from, cols, valid);
    if (set && from) copy_bytes(valid, from, static_cast<size_t>(cols), stream);
    if (set && !from) std::memset(valid, 1, static_cast<size_t>(cols));
  }
}

}  // namespace rvk
