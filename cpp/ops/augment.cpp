#include "ops/augment.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "bits.h"
#include "dispatch.h"
#include "interpolate.h"
#include "parallel.h"
#include "philox_rounds.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rvk {

namespace {

constexpr uint8_t kIgnore = 255;

void multiply_add(float* values, int64_t count, float gain, float offset) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) values[i] = values[i] * gain + offset;
  });
}

// Terms in pairs: a chain of multiplications and additions would keep the processor waiting.
inline RVK_INLINE float log_factor(float t) {
  const float t2 = t * t;
  return (kLog[0] + kLog[1] * t) + t2 * ((kLog[2] + kLog[3] * t) + t2 * (kLog[4] + kLog[5] * t));
}

inline RVK_INLINE float exp_factor(float f) { return (kExp[0] + kExp[1] * f) + (f * f) * (kExp[2] + kExp[3] * f); }

// gamma * log2(x), x in (kLeastPower, 1].
inline RVK_INLINE float scaled_log(float x, float gamma) {
  constexpr uint32_t kRootOfHalf = 0x3F3504F3;
  const uint32_t bits = bits_of(x);
  const int32_t exponent = static_cast<int32_t>(bits - kRootOfHalf) >> 23;
  const float t = float_of(bits - (static_cast<uint32_t>(exponent) << 23)) - 1.0f;
  return gamma * (static_cast<float>(exponent) + t * log_factor(t));
}

inline RVK_INLINE float exp2_of(float y) {
  constexpr float kWhole = 0x1.8p23f;  // at this size, float32 has whole numbers only, and ends in their bits
  const float shifted = y + kWhole;
  const float f = y - (shifted - kWhole);
  return float_of(bits_of(1.0f + f * exp_factor(f)) + (bits_of(shifted) << 23));
}

// prepare(v), then the gamma step. In two loops: a processor that looks some hundred instructions ahead sees twice as
// many values at once as in one loop with both chains of instructions, so it waits for neither.
template <typename F>
void raise_to(float* values, int64_t count, float gamma, float peak, F prepare) {
  constexpr int64_t kBlock = 256;
  dispatch([=]() RVK_INLINE {
    const float inverse = 1.0f / peak;
    alignas(64) float exponents[kBlock];
    for (int64_t first = 0; first < count; first += kBlock) {
      float* block = values + first;
      const int64_t size = std::min(kBlock, count - first);
      for (int64_t i = 0; i < size; ++i) {
        const float x = prepare(block[i]) * inverse;
        const int32_t held = std::min(order_of(x), order_of(1.0f));  // < 0: replaced below
        block[i] = x;
        exponents[i] = scaled_log(float_of(static_cast<uint32_t>(held)), gamma);
      }
      for (int64_t i = 0; i < size; ++i) {
        const float x = block[i], raised = peak * exp2_of(exponents[i]), none = x * 0.0f;
        block[i] = x > kLeastPower ? raised : none;
      }
    }
  });
}

void turn_colours(const Planes& planes, int64_t count, const float* matrix) {
  float *red = planes[0], *green = planes[1], *blue = planes[2];
  float m[9];
  std::copy(matrix, matrix + 9, m);
  dispatch([=]() RVK_INLINE {
    for (int64_t c = 0; c < count; ++c) {
      const float r = red[c], g = green[c], b = blue[c];
      red[c] = m[0] * r + m[1] * g + m[2] * b;
      green[c] = m[3] * r + m[4] * g + m[5] * b;
      blue[c] = m[6] * r + m[7] * g + m[8] * b;
    }
  });
}

// A symmetric filter: to[i] = w[0] * low[0][i] + sum_k w[k] * (low[k][i] + high[k][i]), in passes of three distances,
// on `planes` runs of `count` values; the next run begins to_step and from_step values after one.
struct Filter {
  const float *const *low, *const *high;
  const float* weight;
  int64_t radius;
};

void apply(const Filter& f, int64_t planes, int64_t count, int64_t from_step, float* to, int64_t to_step) {
  for (int64_t k = 1; k == 1 || k <= f.radius; k += 3) {
    const bool first = k == 1;
    const int64_t taps = std::min<int64_t>(3, f.radius - k + 1), second = k + (taps > 1), third = second + (taps > 2);
    const float *middle = f.low[0], *a1 = f.low[k], *b1 = f.high[k], *a2 = f.low[second], *b2 = f.high[second];
    const float *a3 = f.low[third], *b3 = f.high[third];
    const float w = f.weight[0], w1 = f.weight[k], w2 = f.weight[second], w3 = f.weight[third];
    dispatch([=]() RVK_INLINE {
      const auto pass = [&](auto add) RVK_INLINE {
        for (int64_t p = 0; p < planes; ++p) {
          float* sum = to + p * to_step;
          const int64_t from = p * from_step;
          if (first) {
#pragma GCC ivdep
            for (int64_t i = 0; i < count; ++i) sum[i] = add(w * middle[from + i], from + i);
          } else {
#pragma GCC ivdep
            for (int64_t i = 0; i < count; ++i) sum[i] = add(sum[i], from + i);
          }
        }
      };
      const auto one = [&](float v, int64_t i) RVK_INLINE { return v + w1 * (a1[i] + b1[i]); };
      const auto two = [&](float v, int64_t i) RVK_INLINE { return one(v, i) + w2 * (a2[i] + b2[i]); };
      if (taps == 1) {
        pass(one);
      } else if (taps == 2) {
        pass(two);
      } else {
        pass([&](float v, int64_t i) RVK_INLINE { return two(v, i) + w3 * (a3[i] + b3[i]); });
      }
    });
  }
}

void fill(float* to, int64_t count, float value) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) to[i] = value;
  });
}

// The four sums of the bytes of word `bits`, each times `strength`, to to[0], to[step], ...
inline RVK_INLINE void byte_sums(uint32_t bits, float strength, float* to, int64_t step) {
  const auto word = static_cast<int32_t>(bits);
  const int32_t a = word & 255, b = word >> 8 & 255, c = word >> 16 & 255, d = word >> 24 & 255;
  to[0] = static_cast<float>(a + b + c + d - 510) * strength;
  to[step] = static_cast<float>((a + b) - (c + d)) * strength;
  to[2 * step] = static_cast<float>((a - b) + (c - d)) * strength;
  to[3 * step] = static_cast<float>((a - b) - (c - d)) * strength;
}

// The noise of a row: sixteen runs of `blocks` values.
void make_noise_plain(float* to, int64_t blocks, float strength, const PhiloxBlock& counter, PhiloxKey key) {
  for (int64_t j = 0; j < blocks; ++j) {
    const PhiloxBlock words = philox({counter[0] + static_cast<uint32_t>(j), counter[1], counter[2], counter[3]}, key);
    for (size_t w = 0; w < 4; ++w) byte_sums(words[w], strength, to + 4 * static_cast<int64_t>(w) * blocks + j, blocks);
  }
}

#if defined(__x86_64__)

RVK_V4 void make_noise_v4(float* to, int64_t blocks, float strength, const PhiloxBlock& counter, PhiloxKey key) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i bytes = _mm512_set1_epi32(0x00FF00FF), low_half = _mm512_set1_epi32(0xFFFF);
  const __m512i middle = _mm512_set1_epi32(510);
  const __m512 scale = _mm512_set1_ps(strength);
  for (int64_t j = 0; j < blocks; j += 16) {
    __m512i x[4] = {
        _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(counter[0] + static_cast<uint32_t>(j))), lanes),
        _mm512_set1_epi32(static_cast<int32_t>(counter[1])), _mm512_set1_epi32(static_cast<int32_t>(counter[2])),
        _mm512_set1_epi32(static_cast<int32_t>(counter[3]))};
    philox_rounds_v4(x, key);
    for (int64_t w = 0; w < 4; ++w) {
      // Halves a + b, c + d and a - b, c - d of sixteen bits.
      const __m512i even = _mm512_and_si512(x[w], bytes), odd = _mm512_and_si512(_mm512_srli_epi32(x[w], 8), bytes);
      const __m512i sums = _mm512_add_epi16(even, odd), differences = _mm512_sub_epi16(even, odd);
      const __m512i a = _mm512_and_si512(sums, low_half), c = _mm512_srli_epi32(sums, 16);
      const __m512i b = _mm512_srai_epi32(_mm512_slli_epi32(differences, 16), 16);
      const __m512i d = _mm512_srai_epi32(differences, 16);
      const __m512i values[4] = {_mm512_sub_epi32(_mm512_add_epi32(a, c), middle), _mm512_sub_epi32(a, c),
                                 _mm512_add_epi32(b, d), _mm512_sub_epi32(b, d)};
      for (int64_t k = 0; k < 4; ++k)
        _mm512_storeu_ps(to + (4 * w + k) * blocks + j, _mm512_mul_ps(_mm512_cvtepi32_ps(values[k]), scale));
    }
  }
}

#endif

// counter[0] is the first block's.
void make_noise(float* to, int64_t blocks, float strength, const PhiloxBlock& counter, PhiloxKey key) {
#if defined(__x86_64__)
  if (isa() >= Isa::v4) return make_noise_v4(to, blocks, strength, counter, key);
#endif
  make_noise_plain(to, blocks, strength, counter, key);
}

void add(float* values, const float* more, int64_t count) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < count; ++i) values[i] += more[i];
  });
}

struct Span {
  int64_t begin, end;
};

// A map of whole pixels along the axes: output pixels (r, c) inside rows x cols come from pixel first + r * row_step +
// c * col_step of the chip.
struct Copy {
  bool possible;
  Span rows, cols;
  int64_t first, row_step, col_step;
};

Copy copy_of(const Augment& job, const int64_t* map) {
  const int64_t fractions = (map[0] - kHalf) | map[1] | map[2] | (map[3] - kHalf) | map[4] | map[5];
  const bool upright = map[2] == 0 && map[4] == 0, turned = map[1] == 0 && map[5] == 0;
  Copy copy{(fractions & (kOne - 1)) == 0 && (upright || turned), {0, job.out_rows}, {0, job.out_cols}, 0, 0, 0};
  if (!copy.possible) return copy;
  Span &along_y = upright ? copy.rows : copy.cols, &along_x = upright ? copy.cols : copy.rows;
  narrow(map[0], upright ? map[1] : map[2], job.rows * kOne, along_y.begin, along_y.end);
  narrow(map[3], upright ? map[5] : map[4], job.cols * kOne, along_x.begin, along_x.end);
  copy.first = (map[0] >> 32) * job.cols + (map[3] >> 32);
  copy.row_step = (map[1] >> 32) * job.cols + (map[4] >> 32);
  copy.col_step = (map[2] >> 32) * job.cols + (map[5] >> 32);
  return copy;
}

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Floats on a boundary of 64 bytes.
class Buffer {
 public:
  explicit Buffer(int64_t count) : lines_(static_cast<size_t>((count + 15) / 16)) {}
  float* data() { return lines_.empty() ? nullptr : lines_.data()->values; }

 private:
  struct alignas(64) CacheLine {
    float values[16];
  };
  std::vector<CacheLine> lines_;
};

// Rows of a strip: its float32 values stay in the first-level cache from the first step to the last.
int64_t strip_rows(const Augment& job) {
  constexpr int64_t kValues = 6144;
  return std::min(std::max<int64_t>(1, kValues / (job.out_cols * job.bands)), job.out_rows);
}

bool streamed(const Augment& job) {
  return job.n * job.out_rows * job.out_cols * job.bands * value_size(job.out_type) >= kStreamed;
}

// Makes one chip after the other, strip by strip, in buffers of its own. In a strip, pixel c of row r is planes[b][r *
// width + c], rows counted from the strip's first: width is that of the output or, before the blur, has its margins.
class Worker {
 public:
  explicit Worker(const Augment& job)
      : job_(job),
        size_(job.bands * value_size(job.images.type)),
        strip_rows_(strip_rows(job)),
        margin_(job.radius ? round_up(job.taps - 1, 16) : 0),
        stride_(round_up(strip_rows_ * (job.out_cols + 2 * margin_) + 15, 16)),  // bilinear writes up to 15 more
        row_stride_(round_up(job.out_cols, 16)),
        strip_(job.bands * stride_),
        ring_(job.radius ? (2 * job.taps - 1) * job.bands * row_stride_ : 0),
        blurred_(job.radius ? job.bands * stride_ : 0),
        joined_(streamed(job) ? job.bands * stride_ : 0),
        noise_(job.noise ? 16 * noise_blocks(job.out_cols * job.bands) : 0),
        shifts_(static_cast<size_t>(job.radius ? 2 * job.taps : 0)),
        lines_(static_cast<size_t>(job.out_rows)),
        taps_(job.out_cols),
        tables_(static_cast<size_t>(job.images.type == PixelType::u8 ? job.bands : 0)),
        zeros_(static_cast<size_t>(job.bands), 0.0f),
        ones_(static_cast<size_t>(job.bands), 1.0f),
        same_form_(!job.mean && job.out_type == job.images.type && (!job.planar || job.bands == 1)),
        colours_only_(!job.radius && !job.noise && !job.hole_count && !job.dropped),
        moves_only_(same_form_ && colours_only_ && !job.gain && !job.gamma && !job.matrix),
        turns_bytes_(same_form_ && colours_only_ && job.matrix && job.images.type == PixelType::u8) {}

  void run(int64_t i) {
    start(i);
    if (job_.labels) move_labels();
    if (copy_.possible && moves_only_) return move_image();
    find_source();
    const Planes strip{strip_.data() + (radius_ > 0 ? margin_ : 0), stride_};
    for (int64_t first = 0; first < job_.out_rows; first += strip_rows_) {
      const Span rows{first, std::min(first + strip_rows_, job_.out_rows)};
      if (turns_bytes_ && turn(rows)) continue;
      read(rows, strip);
      if (radius_ == 0) {
        finish(rows, strip);
      } else {
        blur(rows, strip);
      }
    }
  }

 private:
  void start(int64_t i) {
    i_ = i;
    map_ = job_.map + 6 * i;
    copy_ = copy_of(job_, map_);
    const int64_t pixels = job_.index[i] * job_.rows * job_.cols;
    chip_ = job_.images.at(pixels * job_.bands);
    labels_ = job_.labels ? job_.labels + pixels : nullptr;
    radius_ = job_.radius ? job_.radius[i] : 0;
    width_ = job_.out_cols + (radius_ > 0 ? 2 * margin_ : 0);
    for (int64_t r = 0; r < job_.out_rows; ++r) lines_[static_cast<size_t>(r)] = find_line(r);
  }

  const Line& line_of(int64_t r) const { return lines_[static_cast<size_t>(r)]; }

  Line find_line(int64_t r) const {
    Line line{map_[0] + r * map_[1], map_[2], map_[3] + r * map_[4], map_[5], 0, job_.out_cols};
    narrow(line.y, line.dy, job_.rows * kOne, line.begin, line.end);
    narrow(line.x, line.dx, job_.cols * kOne, line.begin, line.end);
    return line;
  }

  void move_labels() {
    const int64_t cols = job_.out_cols;
    uint8_t* out = job_.out_labels + i_ * job_.out_rows * cols;
    if (copy_.possible) {
      const Span &r = copy_.rows, &c = copy_.cols;
      if (r.end - r.begin < job_.out_rows || c.end - c.begin < cols) std::fill_n(out, job_.out_rows * cols, kIgnore);
      return copy_pixels(labels_, 1, out + r.begin * cols + c.begin, cols);
    }
    const uint8_t* labels = near(labels_, job_.rows * job_.cols);
    for (int64_t r = 0; r < job_.out_rows; ++r, out += cols) {
      const Line& line = line_of(r);
      std::fill(out, out + line.begin, kIgnore);
      nearest(labels, job_.cols, line, taps_, out);
      std::fill(out + line.end, out + cols, kIgnore);
    }
  }

  // The inside pixels of the output as they are in `from`, the chip or its labels, of `size` bytes, to `to`.
  void copy_pixels(const uint8_t* from, int64_t size, uint8_t* to, int64_t to_step) {
    const Span &rows = copy_.rows, &cols = copy_.cols;
    const int64_t row_step = copy_.row_step * size, col_step = copy_.col_step * size;
    if (copy_.col_step != 1) from = near(from, job_.rows * job_.cols * size);
    move_pixels(from + copy_.first * size + rows.begin * row_step + cols.begin * col_step, row_step, col_step,
                rows.end - rows.begin, cols.end - cols.begin, size, to, to_step);
  }

  void move_image() {
    const Span &rows = copy_.rows, &cols = copy_.cols;
    const int64_t step = job_.out_cols * size_;
    uint8_t* out = static_cast<uint8_t*>(job_.out) + i_ * job_.out_rows * step;
    if (rows.end - rows.begin < job_.out_rows || cols.end - cols.begin < job_.out_cols) {
      const Planes strip{strip_.data(), stride_};
      for (int64_t b = 0; b < job_.bands; ++b) fill(strip[b], job_.out_cols, job_.fill[b]);
      join_row(strip, job_.out_cols, job_.bands, zeros_.data(), ones_.data(), out, job_.out_type, 0, 0);
      for (int64_t r = 1; r < job_.out_rows; ++r) std::memcpy(out + r * step, out, static_cast<size_t>(step));
    }
    copy_pixels(chip_, size_, out + rows.begin * step + cols.begin * size_, step);
  }

  // `bytes` bytes, to be read in another order than they stand in: in a place that is near, if they are few. Processors
  // fetch in time what is read from beginning to end; at other steps through main memory they wait.
  const uint8_t* near(const uint8_t* from, int64_t bytes) {
    constexpr int64_t kFew = 1 << 19;
    if (bytes > kFew) return from;
    near_.resize(static_cast<size_t>(bytes));
    std::memcpy(near_.data(), from, static_cast<size_t>(bytes));
    return near_.data();
  }

  // Where the strips of the chip are read.
  void find_source() {
    if (!copy_.possible)
      return patch_.take(chip_, job_.images.type, job_.rows, job_.cols, job_.bands, map_, job_.out_rows, job_.out_cols);
    source_step_ = (copy_.cols.end - copy_.cols.begin) * size_;
    if (copy_.col_step == 1) {
      source_ = chip_ + (copy_.first + copy_.rows.begin * copy_.row_step + copy_.cols.begin) * size_;
      source_step_ = copy_.row_step * size_;
    } else {
      moved_.resize(static_cast<size_t>((copy_.rows.end - copy_.rows.begin) * source_step_));
      source_ = moved_.data();
      copy_pixels(chip_, size_, moved_.data(), source_step_);
    }
    // What a byte becomes up to the matrix.
    for (size_t b = 0; b < tables_.size(); ++b) {
      for (int v = 0; v < 256; ++v) tables_[b].values[v] = static_cast<float>(v);
      colour_band(static_cast<int64_t>(b), tables_[b].values, 256);
      tables_[b].find_parts();
    }
  }

  void colour_band(int64_t b, float* values, int64_t count) const {
    const float gain = job_.gain ? job_.gain[i_] : 1.0f, offset = job_.gain ? job_.offset[i_ * job_.bands + b] : 0.0f;
    if (!job_.gamma) {
      if (job_.gain) multiply_add(values, count, gain, offset);
    } else if (job_.gain) {
      raise_to(values, count, job_.gamma[i_], job_.peak, [=](float v) RVK_INLINE { return v * gain + offset; });
    } else {
      raise_to(values, count, job_.gamma[i_], job_.peak, [](float v) RVK_INLINE { return v; });
    }
  }

  // Rows of the output, coloured. The colour steps also run on what is outside; then `fill` covers it.
  void read(const Span& rows, const Planes& strip) {
    const int64_t cols = job_.out_cols, count = (rows.end - rows.begin - 1) * width_ + cols;
    if (copy_.possible) {
      split(rows, strip);
    } else {
      for (int64_t r = rows.begin; r < rows.end; ++r)
        bilinear(patch_, line_of(r), taps_, {strip.data + (r - rows.begin) * width_, stride_});
    }
    const bool by_table = copy_.possible && !tables_.empty();
    if (!by_table)
      for (int64_t b = 0; b < job_.bands; ++b) colour_band(b, strip[b], count);
    if (job_.matrix) turn_colours(strip, count, job_.matrix + 9 * i_);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const Line& line = line_of(r);
      if (line.end - line.begin == cols) continue;
      for (int64_t b = 0; b < job_.bands; ++b) {
        float* row = strip[b] + (r - rows.begin) * width_;
        fill(row, line.begin, job_.fill[b]);
        fill(row + line.end, cols - line.end, job_.fill[b]);
      }
    }
  }

  // A strip of bytes to bytes in one pass; false where that is not possible, or not faster.
  bool turn(const Span& rows) {
    const int64_t cols = job_.out_cols, step = cols * size_, first = (i_ * job_.out_rows + rows.begin) * step;
    if (!copy_.possible || copy_.cols.end - copy_.cols.begin < cols || rows.begin < copy_.rows.begin ||
        rows.end > copy_.rows.end)
      return false;
    const bool streams = joined_.data() != nullptr, whole = source_step_ == step;  // whole: rows follow each other
    uint8_t* to = streams ? reinterpret_cast<uint8_t*>(joined_.data()) : static_cast<uint8_t*>(job_.out) + first;
    const int64_t runs = whole ? 1 : rows.end - rows.begin, count = whole ? (rows.end - rows.begin) * cols : cols;
    const uint8_t* from = source_ + (rows.begin - copy_.rows.begin) * source_step_;
    for (int64_t r = 0; r < runs; ++r)
      if (!turn_bytes(from + r * source_step_, count, job_.bands, tables_.data(), job_.matrix + 9 * i_, to + r * step))
        return false;
    if (streams) stream_row(to, 0, (rows.end - rows.begin) * cols, job_.bands, 1, job_.out, first, 0);
    return true;
  }

  void split(const Span& rows, const Planes& strip) {
    const int64_t cols = copy_.cols.end - copy_.cols.begin;
    const bool joined = cols == width_ && source_step_ == cols * size_;  // rows follow each other
    const Span inside{std::max(rows.begin, copy_.rows.begin), std::min(rows.end, copy_.rows.end)};
    for (int64_t r = inside.begin; r < inside.end; ++r) {
      const int64_t at = (r - rows.begin) * width_ + copy_.cols.begin;
      split_row(source_ + (r - copy_.rows.begin) * source_step_, job_.images.type,
                joined ? (inside.end - inside.begin) * cols : cols, job_.bands, tables_.data(),
                {strip.data + at, stride_});
      if (joined) return;
    }
  }

  float* ring_row(int64_t r) { return ring_.data() + r % (2 * job_.taps - 1) * job_.bands * row_stride_; }

  // Filters the rows along themselves into the ring, and across all rows that have their neighbours there; finishes
  // these when they fill a strip.
  void blur(const Span& rows, const Planes& strip) {
    const int64_t cols = job_.out_cols;
    const float **low = shifts_.data(), **high = low + job_.taps;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* row = strip.data + (r - rows.begin) * width_;
      for (int64_t k = 0; k <= radius_; ++k) {
        low[k] = row - k;
        high[k] = row + k;
      }
      for (int64_t b = 0; b < job_.bands; ++b) {
        float* band = row + b * stride_;
        std::fill(band - radius_, band, band[0]);
        std::fill(band + cols, band + cols + radius_, band[cols - 1]);
      }
      apply(filter(), job_.bands, cols, stride_, ring_row(r), row_stride_);
      if (r >= radius_) blur_across(r - radius_);
    }
    if (rows.end == job_.out_rows)
      for (int64_t r = std::max<int64_t>(0, rows.end - radius_); r < rows.end; ++r) blur_across(r);
  }

  void blur_across(int64_t r) {
    const int64_t first = r / strip_rows_ * strip_rows_, cols = job_.out_cols;
    const float **low = shifts_.data(), **high = low + job_.taps;
    for (int64_t k = 0; k <= radius_; ++k) {
      low[k] = ring_row(std::max<int64_t>(0, r - k));
      high[k] = ring_row(std::min(job_.out_rows - 1, r + k));
    }
    apply(filter(), job_.bands, cols, row_stride_, blurred_.data() + (r - first) * cols, stride_);
    if (r + 1 == std::min(first + strip_rows_, job_.out_rows)) finish({first, r + 1}, {blurred_.data(), stride_});
  }

  // Of the rows that shifts_ names.
  Filter filter() const { return {shifts_.data(), shifts_.data() + job_.taps, job_.weights + i_ * job_.taps, radius_}; }

  void finish(const Span& rows, const Planes& strip) {
    const int64_t cols = job_.out_cols;
    if (job_.noise)
      for (int64_t r = rows.begin; r < rows.end; ++r) add_noise(r, {strip.data + (r - rows.begin) * cols, stride_});
    for (int64_t h = 0; h < job_.hole_count; ++h) {
      const int32_t* hole = job_.holes + (i_ * job_.hole_count + h) * 4;
      for (int64_t r = std::max<int64_t>(rows.begin, hole[0]); r < std::min<int64_t>(rows.end, hole[2]); ++r)
        for (int64_t b = 0; b < job_.bands; ++b)
          fill(strip[b] + (r - rows.begin) * cols + hole[1], hole[3] - hole[1], job_.fill[b]);
    }
    const int64_t count = (rows.end - rows.begin) * cols;
    if (job_.dropped)
      for (int64_t b = 0; b < job_.bands; ++b)
        if (job_.dropped[i_ * job_.bands + b]) fill(strip[b], count, job_.fill[b]);
    join(strip, rows.end - rows.begin, job_.out,
         i_ * job_.out_rows * cols * job_.bands + rows.begin * cols * (job_.planar ? 1 : job_.bands));
  }

  // The first rows of the strip as those that begin at value `first` of `out`.
  void join(const Planes& strip, int64_t rows, void* out, int64_t first) {
    const int64_t count = rows * job_.out_cols, plane = job_.planar ? job_.out_rows * job_.out_cols : 0;
    const float *mean = job_.mean ? job_.mean : zeros_.data(), *inverse = job_.inverse ? job_.inverse : ones_.data();
    if (joined_.data() == nullptr)
      return join_row(strip, count, job_.bands, mean, inverse, out, job_.out_type, first, plane);
    if (job_.planar && job_.out_type == PixelType::f32 &&
        stream_planes(strip, count, job_.bands, mean, inverse, static_cast<float*>(out) + first, plane))
      return;
    const int64_t row_plane = job_.planar ? stride_ : 0;
    join_row(strip, count, job_.bands, mean, inverse, joined_.data(), job_.out_type, 0, row_plane);
    stream_row(joined_.data(), row_plane, count, job_.bands, value_size(job_.out_type), out, first, plane);
  }

  void add_noise(int64_t r, const Planes& row) {
    const Line& line = line_of(r);
    if (line.begin >= line.end) return;
    const int64_t cols = job_.out_cols, blocks = noise_blocks(cols * job_.bands);
    make_noise(noise_.data(), blocks, job_.noise[i_],
               {static_cast<uint32_t>(r * blocks), job_.noise_op, static_cast<uint32_t>(job_.index[i_]), job_.epoch},
               PhiloxKey(job_.seed));
    for (int64_t b = 0; b < job_.bands; ++b)
      add(row[b] + line.begin, noise_.data() + b * cols + line.begin, line.end - line.begin);
  }

  const Augment& job_;
  // Bytes of a pixel; rows of a strip; margin on both sides of its rows for the blur; floats from one band to the next,
  // in a strip and in a row of the ring.
  const int64_t size_, strip_rows_, margin_, stride_, row_stride_;
  Buffer strip_, ring_, blurred_, joined_, noise_;
  std::vector<const float*> shifts_;
  std::vector<Line> lines_;
  Patch patch_;
  Taps taps_;
  std::vector<uint8_t> near_, moved_;
  std::vector<ByteTable> tables_;  // by band, for bytes
  const std::vector<float> zeros_, ones_;
  const bool same_form_;                                // the output's pixels are as the chips'
  const bool colours_only_, moves_only_, turns_bytes_;  // after the geometry

  // The chip being made.
  int64_t i_ = 0, radius_ = 0, width_ = 0;
  const int64_t* map_ = nullptr;
  Copy copy_{};
  const uint8_t *chip_ = nullptr, *labels_ = nullptr;
  const uint8_t* source_ = nullptr;  // of a copy: the inside pixels, row after row
  int64_t source_step_ = 0;
};

}  // namespace

void augment(const Augment& job, int threads) {
  // One worker per thread makes its buffers once; chips, which differ in their steps, go to whoever is free.
  const int64_t workers = std::min<int64_t>(thread_count(threads), job.n);
  std::atomic<int64_t> next{0};
  parallel(workers, threads, [&](int64_t, int64_t) {
    Worker worker(job);
    for (int64_t i; (i = next.fetch_add(1)) < job.n;) worker.run(i);
    finish_streams();
  });
}

}  // namespace rvk
