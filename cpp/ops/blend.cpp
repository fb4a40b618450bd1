#include "ops/blend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace rvk {
namespace {

constexpr int64_t kStrip = 32;  // rows per piece of work

void accumulate(const float* scores, const float* window, float window_row, int64_t n, float* total) {
  dispatch([=]() RVK_INLINE {
    for (int64_t i = 0; i < n; ++i) total[i] += (window_row * window[i]) * scores[i];
  });
}

// The part [begin, end) of a chip's axis that counts, for a chip at `at` on a canvas axis of `length`.
struct Span {
  int64_t begin, end;
  Span(int64_t at, int64_t size, int64_t crop, int64_t length)
      : begin(at <= 0 ? -at : crop), end(at + size >= length ? length - at : size - crop) {}
};

}  // namespace

void blend_add(const BlendCanvas& canvas, const float* scores, const int64_t* row, const int64_t* col, int64_t n,
               const float* window, int64_t size, int64_t crop, int threads) {
  const int64_t classes = canvas.classes;
  std::vector<float> repeated(static_cast<size_t>(size * classes));  // the window once per class, to run along NHWC
  for (int64_t i = 0; i < size * classes; ++i) repeated[static_cast<size_t>(i)] = window[i / classes];

  parallel(
      canvas.rows, threads,
      [&](int64_t top, int64_t bottom) {
        for (int64_t k = 0; k < n; ++k) {
          const Span down(row[k], size, crop, canvas.rows);
          const Span along(col[k], size, crop, canvas.cols);
          const int64_t first = std::max(top, row[k] + down.begin);
          const int64_t last = std::min(bottom, row[k] + down.end);
          const int64_t width = along.end - along.begin;
          if (width <= 0) continue;
          for (int64_t y = first; y < last; ++y) {
            const int64_t i = y - row[k];
            const int64_t pixel = y * canvas.cols + col[k] + along.begin;
            accumulate(scores + ((k * size + i) * size + along.begin) * classes,
                       repeated.data() + along.begin * classes, window[i], width * classes,
                       canvas.total + pixel * classes);
            float* weight = canvas.weight + pixel;
            for (int64_t j = 0; j < width; ++j) weight[j] += window[i] * window[along.begin + j];
          }
        }
      },
      kStrip);
}

int64_t blend_finish(const BlendCanvas& canvas, uint8_t* labels, int threads) {
  const int64_t classes = canvas.classes;
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  int64_t bad = kNone;
  std::mutex lock;
  parallel(
      canvas.rows, threads,
      [&](int64_t top, int64_t bottom) {
        int64_t first_bad = kNone;
        for (int64_t pixel = top * canvas.cols; pixel < bottom * canvas.cols; ++pixel) {
          const float weight = canvas.weight[pixel];
          if (!(weight > 0)) {
            labels[pixel] = kUnseen;
            continue;
          }
          float* mean = canvas.total + pixel * classes;
          float best = -std::numeric_limits<float>::infinity();
          int64_t label = 0;
          bool finite = true;
          for (int64_t c = 0; c < classes; ++c) {
            const float m = mean[c] / weight;
            mean[c] = m;
            finite &= std::isfinite(m);
            if (m > best) {
              best = m;
              label = c;
            }
          }
          labels[pixel] = static_cast<uint8_t>(label);
          if (!finite) first_bad = std::min(first_bad, pixel);
        }
        std::lock_guard<std::mutex> hold(lock);
        bad = std::min(bad, first_bad);
      },
      kStrip);
  return bad == kNone ? -1 : bad;
}

}  // namespace rvk
