#include "ops/confusion.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <type_traits>
#include <vector>

#include "value_counts.h"
#include "dispatch.h"
#include "parallel.h"

namespace rvk {
namespace {

constexpr int64_t kBlock = 4096;     // positions turned into table cells at a time: stays in the first-level cache
constexpr int64_t kGrain = 1 << 20;  // positions per piece of work
constexpr int64_t kNibble = 16;      // up to this side a cell is a byte
constexpr int64_t kTurns = 4;        // tables that take turns, so that a counter need not wait for its last change
constexpr int64_t kSmallSide = 45;   // up to this side they fit in the first-level cache

// Table cells row * side + column of n positions. Two extra rows and columns: `classes` for what is left out, and
// `classes` + 1 for what is neither a class nor left out. One array at a time and in its own width vectorizes best.
// Labels are compared as unsigned numbers, where a negative one is no class.
template <typename T, typename Cell>
void cells(const T* truth, const T* predicted, int64_t n, int64_t classes, T ignore, int64_t side, Cell* cell) {
  using U = std::make_unsigned_t<T>;
  using Wide = std::conditional_t<(sizeof(U) > sizeof(Cell)), U, Cell>;
  dispatch([=]() RVK_INLINE {
    const auto k = static_cast<U>(classes);
    const auto out = static_cast<U>(ignore);
    const auto dropped = static_cast<Wide>(classes);
    const auto odd = static_cast<Wide>(classes + 1);
    const auto step = static_cast<Cell>(side);
    // `ignore` may be one of the classes, and then leaves out by truth only.
    for (int64_t i = 0; i < n; ++i) {
      const auto t = static_cast<U>(truth[i]);
      const Wide row = t < k ? t : odd;
      cell[i] = static_cast<Cell>(static_cast<Cell>(t == out ? dropped : row) * step);
    }
    for (int64_t i = 0; i < n; ++i) {
      const auto p = static_cast<U>(predicted[i]);
      const Wide other = p == out ? dropped : odd;
      cell[i] = static_cast<Cell>(cell[i] + static_cast<Cell>(p < k ? p : other));
    }
  });
}

}  // namespace

template <typename T>
bool confusion(const T* truth, const T* predicted, int64_t n, int64_t classes, int64_t ignore, int64_t* counts,
               int threads) {
  const bool bytes = classes + 2 <= kNibble;
  const int64_t side = bytes ? kNibble : classes + 2;
  const int64_t size = side * side;
  const int64_t turns = side <= kSmallSide ? kTurns : 1;
  const bool any = ignore != kIgnoreNothing && static_cast<int64_t>(static_cast<T>(ignore)) == ignore;
  const T ignored = static_cast<T>(any ? ignore : classes);  // no class either: what it catches is refused below
  std::mutex lock;
  std::atomic<bool> good{true};
  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<int64_t> table(static_cast<size_t>(size));
        if (bytes) {
          ValueCounts<uint8_t> counter(1);
          uint8_t cell[kBlock];
          const uint8_t* const band = cell;
          for (int64_t at = begin; at < end; at += kBlock) {
            const int64_t m = std::min(kBlock, end - at);
            cells(truth + at, predicted + at, m, classes, ignored, side, cell);
            counter.add(&band, 1, nullptr, m);
          }
          counter.move_to(table.data());
        } else {
          std::vector<int64_t> tables(static_cast<size_t>(turns * size));
          uint32_t cell[kBlock];
          for (int64_t at = begin; at < end; at += kBlock) {
            const int64_t m = std::min(kBlock, end - at);
            cells(truth + at, predicted + at, m, classes, ignored, side, cell);
            int64_t i = 0;
            if (turns == kTurns) {
              for (; i + kTurns <= m; i += kTurns)
                for (int64_t k = 0; k < kTurns; ++k) ++tables[static_cast<size_t>(k * size + cell[i + k])];
            }
            for (; i < m; ++i) ++tables[cell[i]];
          }
          for (int64_t k = 0; k < turns * size; ++k)
            table[static_cast<size_t>(k % size)] += tables[static_cast<size_t>(k)];
        }
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
template bool confusion(const uint16_t*, const uint16_t*, int64_t, int64_t, int64_t, int64_t*, int);
template bool confusion(const int32_t*, const int32_t*, int64_t, int64_t, int64_t, int64_t*, int);
template bool confusion(const int64_t*, const int64_t*, int64_t, int64_t, int64_t, int64_t*, int);

}  // namespace rvk
