#include "interpolate.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 means its own _mm512_undefined_epi32 (bug 105593)
#endif

namespace rvk {

namespace {

void find_taps(const Patch& patch, const Line& line, Taps& taps) {
  int32_t* at = taps.at.data();
  float *wx = taps.x.data(), *wy = taps.y.data();
  const auto row_step = static_cast<int32_t>(patch.row_step()), col_step = static_cast<int32_t>(patch.bands());
  const int64_t top = patch.row() * kOne + kHalf, left = patch.col() * kOne + kHalf;
  dispatch([=]() RVK_INLINE {
    for (int64_t c = line.begin; c < line.end; ++c) {
      const int64_t y = line.y + c * line.dy - top, x = line.x + c * line.dx - left;
      wy[c] = static_cast<float>(static_cast<int32_t>((y & (kOne - 1)) >> 8)) * 0x1p-24f;
      wx[c] = static_cast<float>(static_cast<int32_t>((x & (kOne - 1)) >> 8)) * 0x1p-24f;
      at[c] = static_cast<int32_t>(y >> 32) * row_step + static_cast<int32_t>(x >> 32) * col_step;
    }
  });
}

template <typename T>
void blend_plain(const Patch& patch, const Line& line, Taps& taps, const Planes& planes) {
  find_taps(patch, line, taps);
  const int32_t* at = taps.at.data();
  const float *wx = taps.x.data(), *wy = taps.y.data();
  float *a = taps.corner[0].data(), *b = taps.corner[1].data();
  float *d = taps.corner[2].data(), *e = taps.corner[3].data();
  const int64_t right = patch.bands(), down = patch.row_step();
  for (int64_t k = 0; k < patch.bands(); ++k) {
    const T* from = reinterpret_cast<const T*>(patch.data()) + k;
    float* to = planes[k];
    dispatch([=]() RVK_INLINE {
      for (int64_t c = line.begin; c < line.end; ++c) {
        const T* first = from + at[c];
        a[c] = static_cast<float>(first[0]);
        b[c] = static_cast<float>(first[right]);
        d[c] = static_cast<float>(first[down]);
        e[c] = static_cast<float>(first[down + right]);
      }
      for (int64_t c = line.begin; c < line.end; ++c) {
        const float top = a[c] + (b[c] - a[c]) * wx[c];
        const float bottom = d[c] + (e[c] - d[c]) * wx[c];
        to[c] = top + (bottom - top) * wy[c];
      }
    });
  }
}

#if defined(__x86_64__)

#define RVK_VBMI_INLINE RVK_VBMI static inline __attribute__((always_inline))

struct ByteOrder {
  alignas(64) uint8_t at[64];
};

// Word i of sixteen has the first bytes of the eight bytes i, from its byte `begin` on.
constexpr ByteOrder value_bytes(int begin) {
  ByteOrder order{};
  for (int i = 0; i < 64; ++i) order.at[i] = static_cast<uint8_t>(i / 4 * 8 + std::max(0, i % 4 - begin));
  return order;
}

// Sixteen words of eight bytes: of eight output pixels each.
struct Loaded {
  __m512i low, high;
};

RVK_VBMI_INLINE int64_t word_at(const uint8_t* from) {
  int64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// One load after the other: gather instructions take longer (3 times on Zen 5).
RVK_VBMI_INLINE __m512i words_at(const uint8_t* base, const int32_t* offset) {
  return _mm512_set_epi64(word_at(base + offset[7]), word_at(base + offset[6]), word_at(base + offset[5]),
                          word_at(base + offset[4]), word_at(base + offset[3]), word_at(base + offset[2]),
                          word_at(base + offset[1]), word_at(base + offset[0]));
}

RVK_VBMI_INLINE Loaded load_words(const uint8_t* base, const int32_t* offset) {
  return {words_at(base, offset), words_at(base, offset + 8)};
}

// Value `position` (0 = first) of each of the sixteen, as float32.
template <typename T>
RVK_VBMI_INLINE __m512 value_of(const Loaded& loaded, int position) {
  constexpr int kSize = sizeof(T);
  // Signed values go to the upper end of their words, which then shift down with their signs.
  constexpr bool kUpper = std::is_signed_v<T>;
  constexpr __mmask64 kBytes = kUpper ? 0xCCCCCCCCCCCCCCCC : kSize == 2 ? 0x3333333333333333 : 0x1111111111111111;
  static constexpr ByteOrder kOrder = value_bytes(kUpper ? 4 - kSize : 0);
  const __m512i index =
      _mm512_add_epi8(_mm512_load_si512(kOrder.at), _mm512_set1_epi8(static_cast<char>(position * kSize)));
  const __m512i bytes = _mm512_maskz_permutex2var_epi8(kBytes, loaded.low, index, loaded.high);
  return _mm512_cvtepi32_ps(kUpper ? _mm512_srai_epi32(bytes, 32 - 8 * kSize) : bytes);
}

// The whole part and the weight of sixteen coordinates.
struct Position {
  __m512i whole;
  __m512 weight;
};

RVK_VBMI_INLINE Position position_of(__m512i low, __m512i high) {
  const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i fraction = _mm512_srli_epi32(_mm512_permutex2var_epi32(low, even, high), 8);
  return {_mm512_permutex2var_epi32(low, odd, high),
          _mm512_mul_ps(_mm512_cvtepi32_ps(fraction), _mm512_set1_ps(0x1p-24f))};
}

RVK_VBMI_INLINE __m512 between(__m512 a, __m512 b, __m512 weight) {
  return _mm512_add_ps(a, _mm512_mul_ps(_mm512_sub_ps(b, a), weight));
}

// Offsets in bytes and weights, sixteen at a time; the offsets of pixels behind the end, which lie anywhere, are 0.
RVK_VBMI void find_taps_vbmi(const Patch& patch, int64_t size, const Line& line, Taps& taps) {
  const __m512i row_steps = _mm512_set1_epi32(static_cast<int32_t>(patch.row_step() * size));
  const __m512i col_steps = _mm512_set1_epi32(static_cast<int32_t>(patch.bands() * size));
  const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i dy = _mm512_set1_epi64(8 * line.dy), dx = _mm512_set1_epi64(8 * line.dx);
  const int64_t first_y = line.y + line.begin * line.dy - kHalf - patch.row() * kOne;
  const int64_t first_x = line.x + line.begin * line.dx - kHalf - patch.col() * kOne;
  __m512i y = _mm512_add_epi64(_mm512_set1_epi64(first_y), _mm512_mullo_epi64(lanes, _mm512_set1_epi64(line.dy)));
  __m512i x = _mm512_add_epi64(_mm512_set1_epi64(first_x), _mm512_mullo_epi64(lanes, _mm512_set1_epi64(line.dx)));
  for (int64_t c = line.begin; c < line.end; c += 16) {
    const __m512i y_next = _mm512_add_epi64(y, dy), x_next = _mm512_add_epi64(x, dx);
    const Position row = position_of(y, y_next), col = position_of(x, x_next);
    y = _mm512_add_epi64(y_next, dy);
    x = _mm512_add_epi64(x_next, dx);
    const auto wanted = static_cast<__mmask16>(line.end - c >= 16 ? 0xFFFF : (1 << (line.end - c)) - 1);
    const __m512i offset = _mm512_maskz_add_epi32(wanted, _mm512_mullo_epi32(row.whole, row_steps),
                                                  _mm512_mullo_epi32(col.whole, col_steps));
    _mm512_storeu_si512(taps.at.data() + c, offset);
    _mm512_storeu_ps(taps.y.data() + c, row.weight);
    _mm512_storeu_ps(taps.x.data() + c, col.weight);
  }
}

// Integers of one or two bytes. `fixed` is the number of bands, or 0 for any.
template <typename T, int fixed>
RVK_VBMI void blend_vbmi(const Patch& patch, const Line& line, Taps& taps, const Planes& planes) {
  constexpr int kSize = sizeof(T);
  const int bands = fixed > 0 ? fixed : static_cast<int>(patch.bands());
  const int group = std::min(bands, 8 / kSize);  // bands of one pixel that eight bytes have
  const bool pairs = 2 * bands * kSize <= 8;     // they have the next pixel, too
  const int64_t col_step = bands * kSize, row_step = patch.row_step() * kSize;
  find_taps_vbmi(patch, kSize, line, taps);
  for (int64_t c = line.begin; c < line.end; c += 16) {
    const int32_t* at = taps.at.data() + c;
    const __m512 wx = _mm512_loadu_ps(taps.x.data() + c), wy = _mm512_loadu_ps(taps.y.data() + c);
    for (int first = 0; first < bands; first += group) {
      const uint8_t* from = patch.data() + first * kSize;
      const Loaded a = load_words(from, at), d = load_words(from + row_step, at);
      const Loaded b = pairs ? a : load_words(from + col_step, at);
      const Loaded e = pairs ? d : load_words(from + row_step + col_step, at);
      const int next = pairs ? bands : 0;
      for (int k = 0; k < std::min(group, bands - first); ++k) {
        const __m512 above = between(value_of<T>(a, k), value_of<T>(b, next + k), wx);
        const __m512 below = between(value_of<T>(d, k), value_of<T>(e, next + k), wx);
        _mm512_storeu_ps(planes[first + k] + c, between(above, below, wy));
      }
    }
  }
}

template <typename T>
void blend_vbmi(const Patch& patch, const Line& line, Taps& taps, const Planes& planes) {
  switch (patch.bands()) {
    case 1:
      return blend_vbmi<T, 1>(patch, line, taps, planes);
    case 3:
      return blend_vbmi<T, 3>(patch, line, taps, planes);
    case 4:
      return blend_vbmi<T, 4>(patch, line, taps, planes);
    default:
      return blend_vbmi<T, 0>(patch, line, taps, planes);
  }
}

#endif

template <typename T>
void blend(const Patch& patch, const Line& line, Taps& taps, const Planes& planes) {
#if defined(__x86_64__)
  if constexpr (sizeof(T) <= 2) {
    if (isa() >= Isa::vbmi) return blend_vbmi<T>(patch, line, taps, planes);
  }
#endif
  blend_plain<T>(patch, line, taps, planes);
}

// First and last of the pixels [-1, side] that hold, or are next to one that holds, coordinates on an affine map.
struct Range {
  int64_t first, last;
};

Range range_of(int64_t start, int64_t row_step, int64_t col_step, int64_t out_rows, int64_t out_cols, int64_t side) {
  const int64_t rows = (out_rows - 1) * row_step, cols = (out_cols - 1) * col_step;
  const int64_t least = start + std::min<int64_t>(rows, 0) + std::min<int64_t>(cols, 0) - kHalf;
  const int64_t most = start + std::max<int64_t>(rows, 0) + std::max<int64_t>(cols, 0) - kHalf;
  return {std::min(std::max<int64_t>(-1, least >> 32), side), std::max(std::min(side, (most >> 32) + 1), int64_t{-1})};
}

}  // namespace

void narrow(int64_t start, int64_t step, int64_t limit, int64_t& begin, int64_t& end) {
  const auto floor_div = [](int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); };
  if (step == 0) {
    if (start < 0 || start >= limit) end = begin;
    return;
  }
  const auto inside = [=](int64_t c) { return start + c * step >= 0 && start + c * step < limit; };
  if (begin < end && inside(begin) && inside(end - 1)) return;  // most lines: saves the divisions
  const int64_t first = step > 0 ? -floor_div(start, step) : -floor_div(start - (limit - 1), step);
  const int64_t last = step > 0 ? floor_div(limit - 1 - start, step) : floor_div(-start, step);
  begin = std::min(std::max(begin, first), end);
  end = std::max(begin, std::min(end, last + 1));
}

void Patch::take(const uint8_t* chip, PixelType type, int64_t rows, int64_t cols, int64_t bands, const int64_t* map,
                 int64_t out_rows, int64_t out_cols) {
  const Range y = range_of(map[0], map[1], map[2], out_rows, out_cols, rows);
  const Range x = range_of(map[3], map[4], map[5], out_rows, out_cols, cols);
  type_ = type;
  bands_ = bands;
  row_ = y.first;
  col_ = x.first;
  row_step_ = (x.last - x.first + 1) * bands;
  const int64_t size = bands * value_size(type), step = row_step_ * value_size(type);
  data_.resize(static_cast<size_t>((y.last - y.first + 1) * step + 8));  // the last pixel is loaded as eight bytes
  const int64_t first = std::max<int64_t>(x.first, 0), last = std::min(x.last, cols - 1);
  uint8_t* to = data_.data();
  for (int64_t r = y.first; r <= y.last; ++r, to += step) {
    const uint8_t* from = chip + std::min(std::max<int64_t>(r, 0), rows - 1) * cols * size;
    if (last >= first)
      std::memcpy(to + (first - x.first) * size, from + first * size, static_cast<size_t>((last - first + 1) * size));
    if (x.first < 0) std::memcpy(to, from, static_cast<size_t>(size));
    if (x.last >= cols) std::memcpy(to + step - size, from + (cols - 1) * size, static_cast<size_t>(size));
  }
}

Taps::Taps(int64_t cols) : at(static_cast<size_t>(cols + 15)), x(at.size()), y(at.size()) {
  for (auto& c : corner) c.resize(at.size());
}

void bilinear(const Patch& patch, const Line& line, Taps& taps, const Planes& planes) {
  if (line.begin >= line.end) return;
  switch (patch.type()) {
    case PixelType::u8:
      return blend<uint8_t>(patch, line, taps, planes);
    case PixelType::u16:
      return blend<uint16_t>(patch, line, taps, planes);
    case PixelType::i16:
      return blend<int16_t>(patch, line, taps, planes);
    default:
      return blend<float>(patch, line, taps, planes);
  }
}

void nearest(const uint8_t* labels, int64_t cols, const Line& line, Taps& taps, uint8_t* to) {
  int32_t* at = taps.at.data();
  dispatch([=]() RVK_INLINE {
    const auto width = static_cast<int32_t>(cols);
    for (int64_t c = line.begin; c < line.end; ++c) {
      const int64_t y = line.y + c * line.dy, x = line.x + c * line.dx;
      at[c] = static_cast<int32_t>(y >> 32) * width + static_cast<int32_t>(x >> 32);
    }
  });
  const int64_t begin = line.begin, end = line.end;
#pragma GCC unroll 8
  for (int64_t c = begin; c < end; ++c) to[c] = labels[at[c]];
}

}  // namespace rvk
