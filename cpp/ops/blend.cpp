#include "ops/blend.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "dispatch.h"
#include "parallel.h"
#include "stream.h"

namespace rvk {
namespace {

constexpr int64_t kStrip = 16;  // rows per piece of work

// The part [begin, end) of a chip's axis that counts, for a chip at `at` on a scene's axis of `length`.
struct Span {
  int64_t begin, end;
  Span(int64_t at, int64_t size, int64_t crop, int64_t length)
      : begin(at <= 0 ? -at : crop), end(at + size >= length ? length - at : size - crop) {}
};

// The chips that meet the rows [top, bottom), in order.
std::vector<int64_t> meeting(const BlendChips& chips, int64_t top, int64_t bottom) {
  std::vector<int64_t> found;
  for (int64_t k = 0; k < chips.n; ++k)
    if (chips.row[k] < bottom && chips.row[k] + chips.size > top) found.push_back(k);
  return found;
}

// total += window_row * window * scores for n numbers; `stride` is the way to what is added next.
void accumulate(const float* scores, int64_t stride, const float* window, float window_row, int64_t n, float* total) {
  // Up to a cache line's beginning first: stores across two lines cost more than all the rest.
  const auto lead = static_cast<int64_t>((64 - reinterpret_cast<uintptr_t>(total) % 64) % 64 / sizeof(float));
  dispatch([=]() RVK_INLINE {
    constexpr int64_t kBlock = 256;
    constexpr int64_t kLine = 16;
    int64_t end = std::min(n, lead);
    for (int64_t i = 0; i < end; ++i) total[i] += (window_row * window[i]) * scores[i];
    for (int64_t begin = end; begin < n; begin = end) {
      end = std::min(n, begin + kBlock);
      // The next row of the chip: processors follow a stream by themselves, but not from page to page.
      for (int64_t i = begin; i < end; i += kLine) __builtin_prefetch(scores + stride + i);
      for (int64_t i = begin; i < end; ++i) total[i] += (window_row * window[i]) * scores[i];
    }
  });
}

void add_weights(const float* window, float window_row, int64_t n, float* weight) {
  dispatch([=]() RVK_INLINE {
    for (int64_t j = 0; j < n; ++j) weight[j] += window_row * window[j];
  });
}

constexpr int64_t kFour = 4;  // classes that are turned round together

// Scores of n pixels, classes last, to planes of kTile pixels, and back; n is a multiple of kFour. Classes come in
// fours: what is beyond the last one is read or overwritten, and belongs to the next pixel or the margin.
constexpr int64_t kTile = 128;

void to_planes(const float* from, int64_t n, int64_t classes, float* planes) {
  for (int64_t c = 0; c < classes; c += kFour)
    for (int64_t p = 0; p < n; p += kFour) {
      const float* pixel = from + p * classes + c;
      float* place = planes + c * kTile + p;
#if defined(__x86_64__)
      __m128 a = _mm_loadu_ps(pixel);
      __m128 b = _mm_loadu_ps(pixel + classes);
      __m128 d = _mm_loadu_ps(pixel + 2 * classes);
      __m128 e = _mm_loadu_ps(pixel + 3 * classes);
      _MM_TRANSPOSE4_PS(a, b, d, e);
      _mm_storeu_ps(place, a);
      _mm_storeu_ps(place + kTile, b);
      _mm_storeu_ps(place + 2 * kTile, d);
      _mm_storeu_ps(place + 3 * kTile, e);
#else
      for (int64_t i = 0; i < kFour; ++i)
        for (int64_t k = 0; k < kFour; ++k) place[k * kTile + i] = pixel[i * classes + k];
#endif
    }
}

void from_planes(const float* planes, int64_t n, int64_t classes, float* to) {
  for (int64_t p = 0; p < n; p += kFour)
    for (int64_t c = (classes - 1) / kFour * kFour; c >= 0; c -= kFour) {  // so that the next pixel's come after
      const float* place = planes + c * kTile + p;
      float* pixel = to + p * classes + c;
#if defined(__x86_64__)
      __m128 a = _mm_loadu_ps(place);
      __m128 b = _mm_loadu_ps(place + kTile);
      __m128 d = _mm_loadu_ps(place + 2 * kTile);
      __m128 e = _mm_loadu_ps(place + 3 * kTile);
      _MM_TRANSPOSE4_PS(a, b, d, e);
      _mm_storeu_ps(pixel, a);
      _mm_storeu_ps(pixel + classes, b);
      _mm_storeu_ps(pixel + 2 * classes, d);
      _mm_storeu_ps(pixel + 3 * classes, e);
#else
      for (int64_t i = 0; i < kFour; ++i)
        for (int64_t k = 0; k < kFour; ++k) pixel[i * classes + k] = place[k * kTile + i];
#endif
    }
}

// Sixteen pixels at a time; compilers make of it what the instruction set has.
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;

// Means in place of totals, and labels, of kTile pixels. Returns whether all means are finite.
bool divide(float* planes, const float* weight, int64_t classes, uint8_t* labels) {
  return dispatch([=]() RVK_INLINE {
    Ints wrong{};
    int32_t label[kTile];
    for (int64_t p = 0; p < kTile; p += kLanes) {
      Floats weights;
      std::memcpy(&weights, weight + p, sizeof weights);
      const Ints seen = weights > 0.0f;
      const Floats divisor = seen ? weights : Floats{} + 1.0f;
      Floats best = Floats{} - std::numeric_limits<float>::infinity();
      Ints found{};
      for (int64_t c = 0; c < classes; ++c) {
        float* plane = planes + c * kTile + p;
        Floats mean;
        std::memcpy(&mean, plane, sizeof mean);
        mean /= divisor;
        std::memcpy(plane, &mean, sizeof mean);
        const Ints better = mean > best;
        best = better ? mean : best;
        found = better ? Ints{} + static_cast<int32_t>(c) : found;
        wrong |= mean - mean != 0.0f;  // NaN or infinite
      }
      found = seen ? found : Ints{} + int32_t{kUnseen};
      std::memcpy(label + p, &found, sizeof found);
    }
    for (int64_t p = 0; p < kTile; ++p) labels[p] = static_cast<uint8_t>(label[p]);
    int32_t any = 0;
    for (int64_t k = 0; k < kLanes; ++k) any |= wrong[k];
    return any == 0;
  });
}

void quantise(const float* means, int64_t n, uint8_t* to) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < n; ++i) {
      const float low = means[i] > 0.0f ? means[i] : 0.0f;
      const float held = low < 1.0f ? low : 1.0f;
      // Adding 1.5 * 2^23 leaves no bits for a fraction, so the sum is rounded half to even.
      constexpr float kWhole = 12582912.0f;
      to[i] = static_cast<uint8_t>(static_cast<int32_t>((held * 255.0f + kWhole) - kWhole));
    }
  });
}

}  // namespace

void blend_add(const BlendCanvas& canvas, const BlendChips& chips, const float* scores, int threads) {
  if (chips.n == 0) return;
  const int64_t classes = canvas.classes;
  const int64_t size = chips.size;
  std::vector<float> repeated(static_cast<size_t>(size * classes));  // the window once per class, to run along NHWC
  for (int64_t i = 0; i < size * classes; ++i) repeated[static_cast<size_t>(i)] = chips.window[i / classes];

  const auto [lowest, highest] = std::minmax_element(chips.row, chips.row + chips.n);
  const auto [leftmost, rightmost] = std::minmax_element(chips.col, chips.col + chips.n);
  const int64_t begin = std::max<int64_t>(0, *lowest);
  const int64_t end = std::min(canvas.rows, *highest + size);
  const int64_t left = std::max<int64_t>(0, *leftmost);
  const int64_t right = std::min(canvas.cols, *rightmost + size);
  if (begin >= end || left >= right) return;
  // All chips are added to one row, or as much of it as stays in L2, before the next: the canvas is read and written
  // once, and what accumulate() asks for of each chip's next row has the time of a whole row to come.
  constexpr int64_t kBytes = int64_t{1} << 18;
  const int64_t block = std::max<int64_t>(64, kBytes / (classes * int64_t{sizeof(float)}));
  // What a chip adds to a block: n numbers in each of the rows [first, last) of the scene, from column x.
  struct Piece {
    int64_t chip, first, last, x, n;
  };
  parallel(
      end - begin, threads,
      [&](int64_t from, int64_t to) {
        std::vector<Piece> pieces;
        for (int64_t top = begin + from; top < begin + to; top += kStrip) {
          const int64_t bottom = std::min(top + kStrip, begin + to);
          const std::vector<int64_t> near = meeting(chips, top, bottom);
          for (int64_t x = left; x < right; x += block) {
            pieces.clear();
            for (const int64_t k : near) {
              const Span down(chips.row[k], size, chips.crop, canvas.rows);
              const Span along(chips.col[k], size, chips.crop, canvas.cols);
              const int64_t start = std::max(chips.col[k] + along.begin, x);
              const int64_t stop = std::min(chips.col[k] + along.end, x + block);
              if (start < stop)
                pieces.push_back(
                    {k, chips.row[k] + down.begin, chips.row[k] + down.end, start, (stop - start) * classes});
            }
            for (int64_t y = top; y < bottom; ++y)
              for (const Piece& piece : pieces) {
                if (y < piece.first || y >= piece.last) continue;
                const int64_t k = piece.chip, i = y - chips.row[k], j = piece.x - chips.col[k];
                accumulate(scores + ((k * size + i) * size + j) * classes, size * classes,
                           repeated.data() + j * classes, chips.window[i], piece.n,
                           canvas.total + (y % canvas.held * canvas.cols + piece.x) * classes);
              }
          }
        }
      },
      kStrip);
}

int64_t blend_finish(const BlendCanvas& canvas, const BlendChips& chips, int64_t first, int64_t last,
                     const Blended& out, bool clear, int threads) {
  const int64_t classes = canvas.classes;
  const int64_t cols = canvas.cols;
  const int64_t in_fours = (classes + kFour - 1) / kFour * kFour;
  constexpr int64_t kAhead = 4 * kTile;  // pixels that are asked for before they are needed
  const bool large = (last - first) * cols * classes * int64_t{sizeof(float)} >= kStreamBytes;
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  int64_t bad = kNone;
  std::mutex lock;
  parallel(
      last - first, threads,
      [&](int64_t top, int64_t bottom) {
        const std::vector<int64_t> near = meeting(chips, first + top, first + bottom);
        std::vector<float> weights(static_cast<size_t>(cols + kTile));
        std::vector<float> planes(static_cast<size_t>(in_fours * kTile));
        std::vector<float> pixels(static_cast<size_t>(classes * kTile + kFour));
        uint8_t labels[kTile];
        int64_t first_bad = kNone;
        for (int64_t y = top; y < bottom; ++y) {
          std::fill(weights.begin(), weights.end(), 0.0f);
          for (const int64_t k : near) {
            const Span down(chips.row[k], chips.size, chips.crop, canvas.rows);
            const Span along(chips.col[k], chips.size, chips.crop, cols);
            const int64_t i = first + y - chips.row[k];
            if (i < down.begin || i >= down.end || along.begin >= along.end) continue;
            add_weights(chips.window + along.begin, chips.window[i], along.end - along.begin,
                        weights.data() + chips.col[k] + along.begin);
          }
          float* row = canvas.total + (first + y) % canvas.held * cols * classes;
          for (int64_t x = 0; x < cols; x += kTile) {
            const int64_t n = std::min(kTile, cols - x);
            float* sums = row + x * classes;
            for (int64_t i = 0; i < n * classes; i += kLanes) __builtin_prefetch(sums + kAhead * classes + i);
            // Whole fours are read from the canvas itself, except where they reach beyond the row: that is not ours.
            const float* from = sums;
            if (x + kTile + kFour > cols) {
              std::copy(sums, sums + n * classes, pixels.data());
              from = pixels.data();
            }
            to_planes(from, (n + kFour - 1) / kFour * kFour, classes, planes.data());
            const bool finite = divide(planes.data(), weights.data() + x, classes, labels);
            std::memcpy(out.labels + y * cols + x, labels, static_cast<size_t>(n));
            for (int64_t p = 0; p < n && !finite; ++p)
              for (int64_t c = 0; c < classes && labels[p] != kUnseen; ++c) {
                const float mean = planes[static_cast<size_t>(c * kTile + p)];
                if (!(mean - mean == 0.0f)) first_bad = std::min(first_bad, y * cols + x + p);
              }
            if (out.means != nullptr || out.quantised != nullptr) {
              from_planes(planes.data(), (n + kFour - 1) / kFour * kFour, classes, pixels.data());
              const int64_t place = (y * cols + x) * classes;
              if (out.quantised != nullptr) quantise(pixels.data(), n * classes, out.quantised + place);
              if (out.means != nullptr && large) stream(out.means + place, pixels.data(), n * classes);
              if (out.means != nullptr && !large)
                std::copy(pixels.data(), pixels.data() + n * classes, out.means + place);
            }
            if (clear) std::fill(sums, sums + n * classes, 0.0f);
          }
        }
        if (large) stream_end();
        std::lock_guard<std::mutex> hold(lock);
        bad = std::min(bad, first_bad);
      },
      kStrip);
  return bad == kNone ? -1 : bad;
}

}  // namespace rvk
