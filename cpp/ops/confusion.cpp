#include "ops/confusion.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <type_traits>
#include <vector>

#include "dispatch.h"
#include "parallel.h"
#include "value_counts.h"

namespace rvk {
namespace {

constexpr int64_t kBlock = 4096;     // positions turned into table cells at a time: stays in the first-level cache
constexpr int64_t kGrain = 1 << 20;  // positions per piece of work
constexpr int64_t kByteSide = 16;    // up to this side a cell is a byte
constexpr int64_t kWordSide = 256;   // up to this side it has 16 bits

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

// The next positions come into the cache while these are counted.
template <typename T>
void prefetch(const T* labels, int64_t n) {
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(64 / sizeof(T))) __builtin_prefetch(labels + i);
}

// Calls count(cell, m) with the cells of n positions, block by block.
template <typename T, typename Cell, typename F>
void by_blocks(const T* truth, const T* predicted, int64_t n, int64_t classes, T ignore, int64_t side, F&& count) {
  constexpr int64_t kPage = 4096 / sizeof(T);
  Cell cell[kBlock];
  for (int64_t at = 0; at < n; at += kBlock) {
    const int64_t m = std::min(kBlock, n - at);
    for (int64_t i = 0; i < m; i += kPage) {
      const int64_t here = std::min(kPage, m - i), next = at + i + here;
      prefetch(truth + next, std::min(kPage, n - next));
      prefetch(predicted + next, std::min(kPage, n - next));
      cells(truth + at + i, predicted + at + i, here, classes, ignore, side, cell + i);
    }
    count(cell, m);
  }
}

// table (side, side) grows by the counts of n positions.
template <typename T, typename Cell>
void count_cells(const T* truth, const T* predicted, int64_t n, int64_t classes, T ignore, int64_t side,
                 int64_t* table) {
  if constexpr (sizeof(Cell) <= 2) {
    ValueCounts<Cell> counts(1, side * side);
    by_blocks<T, Cell>(truth, predicted, n, classes, ignore, side,
                       [&](const Cell* cell, int64_t m) { counts.add(&cell, 1, nullptr, m); });
    counts.move_to(table);
  } else {
    by_blocks<T, Cell>(truth, predicted, n, classes, ignore, side, [=](const Cell* cell, int64_t m) {
      for (int64_t i = 0; i < m; ++i) ++table[cell[i]];
    });
  }
}

}  // namespace

template <typename T>
bool confusion(const T* truth, const T* predicted, int64_t n, int64_t classes, int64_t ignore, int64_t* counts,
               int threads) {
  const int64_t side = std::max(kByteSide, classes + 2);
  const bool any = ignore != kIgnoreNothing && static_cast<int64_t>(static_cast<T>(ignore)) == ignore;
  const T ignored = static_cast<T>(any ? ignore : classes);  // no class either: what it catches is refused below
  const auto count = side <= kByteSide   ? &count_cells<T, uint8_t>
                     : side <= kWordSide ? &count_cells<T, uint16_t>
                                         : &count_cells<T, uint32_t>;
  // A large table is worth only one piece per thread.
  const int64_t share = side <= kByteSide ? 0 : (n + thread_count(threads) - 1) / thread_count(threads);
  std::mutex lock;
  std::atomic<bool> good{true};
  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<int64_t> table(static_cast<size_t>(side * side));
        count(truth + begin, predicted + begin, end - begin, classes, ignored, side, table.data());
        std::lock_guard<std::mutex> hold(lock);
        for (int64_t t = 0; t < side; ++t) {
          for (int64_t p = 0; p < side; ++p) {
            const int64_t found = table[static_cast<size_t>(t * side + p)];
            if (found == 0) continue;
            const bool outside = t > classes || p > classes || (!any && (t == classes || p == classes));
            if (outside)
              good.store(false);
            else if (t < classes && p < classes)
              counts[t * classes + p] += found;
          }
        }
      },
      std::max(kGrain, share));
  return good.load();
}

template bool confusion(const uint8_t*, const uint8_t*, int64_t, int64_t, int64_t, int64_t*, int);
template bool confusion(const uint16_t*, const uint16_t*, int64_t, int64_t, int64_t, int64_t*, int);
template bool confusion(const int32_t*, const int32_t*, int64_t, int64_t, int64_t, int64_t*, int);
template bool confusion(const int64_t*, const int64_t*, int64_t, int64_t, int64_t, int64_t*, int);

}  // namespace rvk
