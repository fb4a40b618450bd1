#include "augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "../dispatch.h"
#include "../parallel.h"
#include "../philox.h"

namespace rvk {

namespace {

constexpr int64_t kOne = int64_t{1} << 32;  // one pixel
constexpr int64_t kHalf = kOne / 2;

// Where the pixels of one output row lie in the source: at pixel c, (y + c * dy, x + c * dx). Those with
// begin <= c < end are inside.
struct Line {
  int64_t y, dy, x, dx;
  int64_t begin, end;
};

// Shrinks [begin, end) to the c with 0 <= start + c * step < limit.
void narrow(int64_t start, int64_t step, int64_t limit, int64_t& begin, int64_t& end) {
  const auto floor_div = [](int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); };
  if (step == 0) {
    if (start < 0 || start >= limit) end = begin;
    return;
  }
  const int64_t first = step > 0 ? -floor_div(start, step) : -floor_div(start - (limit - 1), step);
  const int64_t last = step > 0 ? floor_div(limit - 1 - start, step) : floor_div(-start, step);
  begin = std::min(std::max(begin, first), end);
  end = std::max(begin, std::min(end, last + 1));
}

Line line_of(const Augment& job, const int64_t* map, int64_t row) {
  Line line{map[0] + row * map[1], map[2], map[3] + row * map[4], map[5], 0, job.out_cols};
  narrow(line.y, line.dy, job.rows * kOne, line.begin, line.end);
  narrow(line.x, line.dx, job.cols * kOne, line.begin, line.end);
  return line;
}

// Every pixel centre falls on a pixel centre.
bool whole_pixels(const int64_t* map) {
  const int64_t fractions = (map[0] - kHalf) | map[1] | map[2] | (map[3] - kHalf) | map[4] | map[5];
  return (fractions & (kOne - 1)) == 0;
}

// The four source pixels around each output pixel, as offsets into the chip, and the weights of the later ones.
struct Taps {
  std::vector<int32_t> top_left, top_right, bottom_left, bottom_right;
  std::vector<float> x, y;
  explicit Taps(size_t n) : top_left(n), top_right(n), bottom_left(n), bottom_right(n), x(n), y(n) {}
};

void find_taps(const Line& line, int64_t rows, int64_t cols, int64_t bands, int32_t* __restrict top_left,
               int32_t* __restrict top_right, int32_t* __restrict bottom_left, int32_t* __restrict bottom_right,
               float* __restrict wx, float* __restrict wy) {
  dispatch([=]() RVK_INLINE {
    const auto last_row = static_cast<int32_t>(rows - 1), last_col = static_cast<int32_t>(cols - 1);
    const auto row_step = static_cast<int32_t>(cols * bands), col_step = static_cast<int32_t>(bands);
    int64_t y = line.y + line.begin * line.dy - kHalf, x = line.x + line.begin * line.dx - kHalf;
    for (int64_t c = line.begin; c < line.end; ++c, y += line.dy, x += line.dx) {
      const auto row = static_cast<int32_t>(y >> 32), col = static_cast<int32_t>(x >> 32);
      wy[c] = static_cast<float>(static_cast<int32_t>((y & (kOne - 1)) >> 8)) * 0x1p-24f;
      wx[c] = static_cast<float>(static_cast<int32_t>((x & (kOne - 1)) >> 8)) * 0x1p-24f;
      const int32_t top = std::max(row, 0) * row_step, bottom = std::min(row + 1, last_row) * row_step;
      const int32_t left = std::max(col, 0) * col_step, right = std::min(col + 1, last_col) * col_step;
      top_left[c] = top + left;
      top_right[c] = top + right;
      bottom_left[c] = bottom + left;
      bottom_right[c] = bottom + right;
    }
  });
}

using Float4 = float __attribute__((vector_size(16)));

using Int4 = int32_t __attribute__((vector_size(16)));

// Four values, from any address. Integers come as whole words, which shifts take apart (the least byte is first in
// memory): compilers convert a vector of four bytes one by one.
inline __attribute__((always_inline)) Float4 load4(const float* from) {
  Float4 four;
  std::memcpy(&four, from, sizeof four);
  return four;
}

inline __attribute__((always_inline)) Float4 load4(const uint8_t* from) {
  int32_t word;
  std::memcpy(&word, from, sizeof word);
  const Int4 four = (Int4{word, word, word, word} >> Int4{0, 8, 16, 24}) & 255;
  return __builtin_convertvector(four, Float4);
}

inline __attribute__((always_inline)) Float4 load4(const uint16_t* from) {
  int32_t words[2];
  std::memcpy(words, from, sizeof words);
  const Int4 four = (Int4{words[0], words[0], words[1], words[1]} >> Int4{0, 16, 0, 16}) & 65535;
  return __builtin_convertvector(four, Float4);
}

// Bands [k, k + 4) of one output pixel.
template <typename T>
inline __attribute__((always_inline)) void blend4(const T* a, const T* b, const T* d, const T* e, int64_t k, float wx,
                                                  float wy, float* to) {
  const Float4 p = load4(a + k), q = load4(d + k);
  const Float4 top = p + (load4(b + k) - p) * wx;
  const Float4 bottom = q + (load4(e + k) - q) * wx;
  const Float4 value = top + (bottom - top) * wy;
  std::memcpy(to + k, &value, sizeof value);
}

// Writes pixels [begin, end) of a row of values and up to one value after them. `size` is the number of values in the
// chip, beyond which nothing may be read.
template <typename T>
inline __attribute__((always_inline)) void blend_taps(const T* chip, int64_t size, const Taps& taps, int64_t begin,
                                                      int64_t end, int64_t bands, float* values) {
  const int32_t *top_left = taps.top_left.data(), *top_right = taps.top_right.data();
  const int32_t *bottom_left = taps.bottom_left.data(), *bottom_right = taps.bottom_right.data();
  const float *x = taps.x.data(), *y = taps.y.data();
  for (int64_t c = begin; c < end; ++c) {
    const T *a = chip + top_left[c], *b = chip + top_right[c], *d = chip + bottom_left[c], *e = chip + bottom_right[c];
    const float wx = x[c], wy = y[c];
    float* to = values + c * bands;
    if (bands >= 4) {
      for (int64_t k = 0; k + 4 <= bands; k += 4) blend4(a, b, d, e, k, wx, wy, to);
      if (bands % 4 != 0) blend4(a, b, d, e, bands - 4, wx, wy, to);
    } else if (bands == 3 && bottom_right[c] + 4 <= size) {
      blend4(a, b, d, e, 0, wx, wy, to);  // the fourth value belongs to the next pixel, which is written next
    } else {
      for (int64_t k = 0; k < bands; ++k) {
        const float p = static_cast<float>(a[k]), q = static_cast<float>(d[k]);
        const float top = p + (static_cast<float>(b[k]) - p) * wx;
        const float bottom = q + (static_cast<float>(e[k]) - q) * wx;
        to[k] = top + (bottom - top) * wy;
      }
    }
  }
}

template <typename T>
inline __attribute__((always_inline)) void take_pixels(const T* from, int64_t step, int64_t count, int64_t bands,
                                                       float* to) {
  for (int64_t c = 0; c < count; ++c)
    for (int64_t k = 0; k < bands; ++k) to[c * bands + k] = static_cast<float>(from[c * step + k]);
}

// Calls f with the band count, as a constant for the common ones: the compiler then unrolls the loop over bands.
template <typename F>
inline __attribute__((always_inline)) void with_bands(int64_t bands, F&& f) {
  switch (bands) {
    case 1:
      return f(std::integral_constant<int64_t, 1>());
    case 3:
      return f(std::integral_constant<int64_t, 3>());
    case 4:
      return f(std::integral_constant<int64_t, 4>());
    default:
      return f(bands);
  }
}

template <typename T>
void interpolate(const T* chip, int64_t size, const Taps& taps, const Line& line, int64_t bands, float* values) {
  dispatch([=, &taps]() RVK_INLINE {
    with_bands(bands, [&](auto b) RVK_INLINE { blend_taps(chip, size, taps, line.begin, line.end, b, values); });
  });
}

template <typename T>
void take(const T* from, int64_t step, int64_t count, int64_t bands, float* values) {
  dispatch(
      [=]() RVK_INLINE { with_bands(bands, [&](auto b) RVK_INLINE { take_pixels(from, step, count, b, values); }); });
}

void take_labels(const uint8_t* chip, int64_t cols, const Line& line, int64_t out_cols, uint8_t* to) {
  dispatch([=]() RVK_INLINE {
    std::fill(to, to + line.begin, uint8_t{255});
    for (int64_t c = line.begin; c < line.end; ++c)
      to[c] = chip[((line.y + c * line.dy) >> 32) * cols + ((line.x + c * line.dx) >> 32)];
    std::fill(to + line.end, to + out_cols, uint8_t{255});
  });
}

void multiply_add(float* values, int64_t count, float gain, const float* offset) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) values[i] = values[i] * gain + offset[i];
  });
}

void raise_to(float* values, int64_t count, float gamma, float peak) {
  const float inverse = 1.0f / peak;
  for (int64_t i = 0; i < count; ++i)
    values[i] = peak * std::pow(std::min(std::max(values[i] * inverse, 0.0f), 1.0f), gamma);
}

void turn_colours(float* values, int64_t count, int64_t bands, const float* m) {
  dispatch([=]() RVK_INLINE {
    for (int64_t c = 0; c < count; ++c) {
      float* v = values + c * bands;
      const float r = v[0], g = v[1], b = v[2];
      v[0] = m[0] * r + m[1] * g + m[2] * b;
      v[1] = m[3] * r + m[4] * g + m[5] * b;
      v[2] = m[6] * r + m[7] * g + m[8] * b;
    }
  });
}

// Two taps of a symmetric filter, at the same distance from the middle.
void add_taps(float* to, const float* low, const float* high, int64_t count, float weight) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) to[i] = to[i] + weight * (low[i] + high[i]);
  });
}

void scale_to(float* to, const float* from, int64_t count, float weight) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) to[i] = weight * from[i];
  });
}

// Adds to values[begin, end) of a row whose noise starts at block `first`.
void add_noise(float* values, int64_t begin, int64_t end, float strength, uint32_t first, uint32_t op, uint32_t sample,
               uint32_t epoch, PhiloxKey key) {
  dispatch([=]() RVK_INLINE {
    float steps[128];
    for (int64_t at = begin & ~int64_t{3}; at < end; at += 128) {
      uint32_t words[128];
      philox_32(first + static_cast<uint32_t>(at / 4), op, sample, epoch, key, words);
      for (int i = 0; i < 128; ++i) {
        const uint32_t pairs = (words[i] & 0x00FF00FF) + ((words[i] >> 8) & 0x00FF00FF);
        steps[i] = static_cast<float>(static_cast<int32_t>((pairs & 0xFFFF) + (pairs >> 16)) - 510) * strength;
      }
      if (at >= begin && at + 128 <= end) {
        for (int64_t i = 0; i < 128; ++i) values[at + i] += steps[i];
      } else {
        for (int64_t i = std::max(at, begin); i < std::min(at + 128, end); ++i) values[i] += steps[i - at];
      }
    }
  });
}

// Row buffers of one thread.
class Worker {
 public:
  explicit Worker(const Augment& job)
      : job_(job),
        width_(job.out_cols * job.bands),
        pad_(job.radius ? (job.taps - 1) * job.bands : 0),
        padded_(static_cast<size_t>(width_ + 2 * pad_ + 1)),  // blend_taps writes one value too many
        taps_(static_cast<size_t>(job.out_cols)),
        mean_(repeat_bands(job.mean, job.bands, job.out_cols)),
        inverse_(repeat_bands(job.inverse, job.bands, job.out_cols)),
        fill_(repeat_bands(job.fill, job.bands, job.out_cols)) {}

  void run(int64_t i) {
    const int64_t* map = job_.map + 6 * i;
    const int64_t chip = job_.index[i];
    const int64_t radius = job_.radius ? job_.radius[i] : 0;
    if (job_.gain) offset_ = repeat_bands(job_.offset + i * job_.bands, job_.bands, job_.out_cols);
    if (radius > 0) blurred_.resize(static_cast<size_t>(job_.out_rows * width_));
    const bool copy = whole_pixels(map);
    for (int64_t r = 0; r < job_.out_rows; ++r) {
      const Line line = line_of(job_, map, r);
      read(chip, line, copy);
      colour(i, line);
      if (radius > 0) {
        blur_row(i, radius, blurred_.data() + r * width_);
      } else {
        finish(i, r, line, row());
      }
      if (job_.labels)
        take_labels(job_.labels + chip * job_.rows * job_.cols, job_.cols, line, job_.out_cols,
                    job_.out_labels + (i * job_.out_rows + r) * job_.out_cols);
    }
    if (radius > 0) {
      for (int64_t r = 0; r < job_.out_rows; ++r) {
        blur_column(i, radius, r);
        finish(i, r, line_of(job_, map, r), row());
      }
    }
  }

 private:
  float* row() { return padded_.data() + pad_; }

  void read(int64_t chip, const Line& line, bool copy) {
    const int64_t bands = job_.bands;
    std::copy(fill_.data(), fill_.data() + line.begin * bands, row());
    if (line.begin < line.end) read_inside(chip * job_.rows * job_.cols * bands, line, copy, row());
    std::copy(fill_.data() + line.end * bands, fill_.data() + width_, row() + line.end * bands);
  }

  void read_inside(int64_t first, const Line& line, bool copy, float* to) {
    const int64_t bands = job_.bands;
    if (copy && line.dy == 0 && line.dx == kOne) {
      const int64_t pixel = (line.y >> 32) * job_.cols + (line.x >> 32) + line.begin;
      return widen(job_.images, first + pixel * bands, (line.end - line.begin) * bands, to + line.begin * bands);
    }
    switch (job_.images.type) {
      case PixelType::u8:
        return sample(static_cast<const uint8_t*>(job_.images.data) + first, line, copy, to);
      case PixelType::u16:
        return sample(static_cast<const uint16_t*>(job_.images.data) + first, line, copy, to);
      case PixelType::f32:
        return sample(static_cast<const float*>(job_.images.data) + first, line, copy, to);
    }
  }

  template <typename T>
  void sample(const T* chip, const Line& line, bool copy, float* to) {
    const int64_t bands = job_.bands;
    if (!copy) {
      find_taps(line, job_.rows, job_.cols, bands, taps_.top_left.data(), taps_.top_right.data(),
                taps_.bottom_left.data(), taps_.bottom_right.data(), taps_.x.data(), taps_.y.data());
      return interpolate(chip, job_.rows * job_.cols * bands, taps_, line, bands, to);
    }
    const int64_t y = (line.y + line.begin * line.dy) >> 32, x = (line.x + line.begin * line.dx) >> 32;
    const int64_t from = (y * job_.cols + x) * bands;
    const int64_t step = ((line.dy >> 32) * job_.cols + (line.dx >> 32)) * bands;
    take(chip + from, step, line.end - line.begin, bands, to + line.begin * bands);
  }

  void colour(int64_t i, const Line& line) {
    float* from = row() + line.begin * job_.bands;
    const int64_t pixels = line.end - line.begin, count = pixels * job_.bands;
    if (job_.gain) multiply_add(from, count, job_.gain[i], offset_.data());
    if (job_.gamma) raise_to(from, count, job_.gamma[i], job_.peak);
    if (job_.matrix) turn_colours(from, pixels, job_.bands, job_.matrix + 9 * i);
  }

  void blur_row(int64_t i, int64_t radius, float* to) {
    float* from = row();
    const float* weight = job_.weights + i * job_.taps;
    const int64_t bands = job_.bands;
    for (int64_t k = 1; k <= radius; ++k) {
      std::copy(from, from + bands, from - k * bands);
      std::copy(from + width_ - bands, from + width_, from + width_ + (k - 1) * bands);
    }
    scale_to(to, from, width_, weight[0]);
    for (int64_t k = 1; k <= radius; ++k) add_taps(to, from - k * bands, from + k * bands, width_, weight[k]);
  }

  void blur_column(int64_t i, int64_t radius, int64_t r) {
    const float* weight = job_.weights + i * job_.taps;
    const auto at = [&](int64_t y) {
      return blurred_.data() + std::min(std::max<int64_t>(y, 0), job_.out_rows - 1) * width_;
    };
    scale_to(row(), at(r), width_, weight[0]);
    for (int64_t k = 1; k <= radius; ++k) add_taps(row(), at(r - k), at(r + k), width_, weight[k]);
  }

  void finish(int64_t i, int64_t r, const Line& line, float* values) {
    const int64_t bands = job_.bands;
    if (job_.noise) {
      const auto blocks = static_cast<uint32_t>((width_ + 3) / 4);
      add_noise(values, line.begin * bands, line.end * bands, job_.noise[i], static_cast<uint32_t>(r) * blocks,
                job_.noise_op, static_cast<uint32_t>(job_.index[i]), job_.epoch, PhiloxKey(job_.seed));
    }
    for (int64_t h = 0; h < job_.hole_count; ++h) {
      const int32_t* hole = job_.holes + (i * job_.hole_count + h) * 4;
      if (r >= hole[0] && r < hole[2])
        std::copy(fill_.data() + hole[1] * bands, fill_.data() + hole[3] * bands, values + hole[1] * bands);
    }
    if (job_.dropped) {
      for (int64_t b = 0; b < bands; ++b)
        if (job_.dropped[i * bands + b])
          for (int64_t c = 0; c < job_.out_cols; ++c) values[c * bands + b] = job_.fill[b];
    }
    const int64_t plane = job_.out_rows * job_.out_cols;
    float* to = job_.out + i * plane * bands + r * (job_.planar ? job_.out_cols : width_);
    normalize_row(values, job_.out_cols, bands, mean_.data(), inverse_.data(), to, job_.planar ? plane : 0);
  }

  const Augment& job_;
  int64_t width_, pad_;
  std::vector<float> padded_;
  Taps taps_;
  std::vector<float> mean_, inverse_, fill_, offset_, blurred_;
};

}  // namespace

void augment(const Augment& job, int threads) {
  // A few pieces per thread: they balance, and each makes its buffers once.
  const int64_t pieces = int64_t{4} * thread_count(threads);
  parallel(
      job.n, threads,
      [&](int64_t begin, int64_t end) {
        Worker worker(job);
        for (int64_t i = begin; i < end; ++i) worker.run(i);
      },
      (job.n + pieces - 1) / pieces);
}

}  // namespace rvk
