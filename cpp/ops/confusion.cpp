#include "ops/confusion.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace rvk {
namespace {

constexpr int64_t kBlock = 4096;     // positions turned into table cells at a time: stays in the first-level cache
constexpr int64_t kGrain = 1 << 20;  // positions per piece of work
constexpr int64_t kSmallSide = 64;   // up to this side, four tables fit in the first-level cache

// Two extra rows and columns hold what is left out (`classes`) and what is no label at all (`classes + 1`).
template <typename T>
inline RVK_INLINE void cells_body(const T* truth, const T* predicted, int64_t n, T classes, T truth_ignore,
                                  T predicted_ignore, uint32_t* cell) {
  const auto side = static_cast<uint32_t>(classes) + 2;
  const auto dropped = static_cast<uint32_t>(classes);
  for (int64_t i = 0; i < n; ++i) {
    const T t = truth[i];
    const T p = predicted[i];
    // The order matters: `ignore` may be one of the classes, and then leaves out by truth only.
    const uint32_t row = t == truth_ignore ? dropped : (t >= 0 && t < classes) ? static_cast<uint32_t>(t) : dropped + 1;
    const uint32_t col = (p >= 0 && p < classes) ? static_cast<uint32_t>(p)
                         : p == predicted_ignore ? dropped
                                                 : dropped + 1;
    cell[i] = row * side + col;
  }
}

template <typename T>
void cells(const T* truth, const T* predicted, int64_t n, T classes, T truth_ignore, T predicted_ignore,
           uint32_t* cell) {
  dispatch([=]() RVK_INLINE { cells_body(truth, predicted, n, classes, truth_ignore, predicted_ignore, cell); });
}

}  // namespace

template <typename T>
bool confusion(const T* truth, const T* predicted, int64_t n, int64_t classes, int64_t ignore, int64_t* counts,
               int threads) {
  const int64_t side = classes + 2;
  const int64_t size = side * side;
  // Neighbouring pixels mostly land in the same cell; several tables keep one increment from waiting for the last.
  const int64_t tables = side <= kSmallSide ? 4 : 1;
  const bool any = ignore != kIgnoreNothing && static_cast<int64_t>(static_cast<T>(ignore)) == ignore;
  std::mutex lock;
  std::atomic<bool> good{true};
  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<int64_t> table(static_cast<size_t>(tables * size));
        std::vector<uint32_t> cell(kBlock);
        for (int64_t at = begin; at < end; at += kBlock) {
          const int64_t m = std::min(kBlock, end - at);
          const T none = static_cast<T>(classes);  // no class either: what it catches is refused below
          cells(truth + at, predicted + at, m, static_cast<T>(classes), any ? static_cast<T>(ignore) : none,
                any ? static_cast<T>(ignore) : none, cell.data());
          int64_t i = 0;
          if (tables == 4) {
            for (; i + 4 <= m; i += 4) {
              for (int64_t k = 0; k < 4; ++k) ++table[static_cast<size_t>(k * size + cell[static_cast<size_t>(i + k)])];
            }
          }
          for (; i < m; ++i) ++table[cell[static_cast<size_t>(i)]];
        }
        for (int64_t k = 1; k < tables; ++k)
          for (int64_t j = 0; j < size; ++j) table[static_cast<size_t>(j)] += table[static_cast<size_t>(k * size + j)];
        std::lock_guard<std::mutex> hold(lock);
        for (int64_t t = 0; t < side; ++t) {
          for (int64_t p = 0; p < side; ++p) {
            const int64_t count = table[static_cast<size_t>(t * side + p)];
            if (count == 0) continue;
            const bool outside = t > classes || p > classes || (!any && (t == classes || p == classes));
            if (outside)
              good.store(false);
            else if (t < classes && p < classes)
              counts[t * classes + p] += count;
          }
        }
      },
      kGrain);
  return good.load();
}

template bool confusion(const uint8_t*, const uint8_t*, int64_t, int64_t, int64_t, int64_t*, int);
template bool confusion(const int32_t*, const int32_t*, int64_t, int64_t, int64_t, int64_t*, int);
template bool confusion(const int64_t*, const int64_t*, int64_t, int64_t, int64_t, int64_t*, int);

}  // namespace rvk
