#include "ops/statistics.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "parallel.h"

namespace rvk {
namespace {

// Two tables in turn, so that one increment need not wait for the last where neighbouring pixels are alike.
constexpr int64_t kTables = 2;
constexpr int64_t kGrain = int64_t{1} << 18;    // pixels per piece of work, at least
constexpr int64_t kSquares = int64_t{1} << 15;  // squares below 2^48 that surely fit in 64 bits

// A piece for each thread, unless that is too little work for one.
int64_t grain(int64_t pixels, int threads) {
  return std::max(kGrain, (pixels + thread_count(threads) - 1) / thread_count(threads));
}

}  // namespace

template <typename T>
void statistics_integer(const T* images, const uint8_t* valid, int64_t pixels, int64_t bands, int64_t* histogram,
                        int threads) {
  constexpr int64_t kBins = int64_t{std::numeric_limits<T>::max()} + 1;
  const int64_t size = bands * kBins;
  std::mutex lock;
  parallel(
      pixels, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<int64_t> counts(static_cast<size_t>(kTables * size));
        for (int64_t i = begin; i < end; ++i) {
          if (valid != nullptr && valid[i] == 0) continue;
          int64_t* table = counts.data() + (i % kTables) * size;
          const T* pixel = images + i * bands;
          for (int64_t b = 0; b < bands; ++b) ++table[b * kBins + pixel[b]];
        }
        std::lock_guard<std::mutex> hold(lock);
        for (int64_t t = 0; t < kTables; ++t)
          for (int64_t k = 0; k < size; ++k) histogram[k] += counts[static_cast<size_t>(t * size + k)];
      },
      grain(pixels, threads));
}

template void statistics_integer(const uint8_t*, const uint8_t*, int64_t, int64_t, int64_t*, int);
template void statistics_integer(const uint16_t*, const uint8_t*, int64_t, int64_t, int64_t*, int);

void statistics_float(const float* images, const uint8_t* valid, int64_t pixels, int64_t bands, int64_t* histogram,
                      int64_t* sums, uint32_t* extrema, int threads) {
  std::mutex lock;
  parallel(
      pixels, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<int64_t> counts(static_cast<size_t>(bands * kFloatBins));
        std::vector<int64_t> first(static_cast<size_t>(bands * kExponents));
        std::vector<uint64_t> squares(static_cast<size_t>(bands * kExponents));
        std::vector<int64_t> low(static_cast<size_t>(bands * kExponents));
        std::vector<int64_t> high(static_cast<size_t>(bands * kExponents));
        std::vector<uint32_t> least(static_cast<size_t>(bands), std::numeric_limits<uint32_t>::max());
        std::vector<uint32_t> greatest(static_cast<size_t>(bands), 0);
        for (int64_t from = begin; from < end; from += kSquares) {
          const int64_t to = std::min(end, from + kSquares);
          for (int64_t i = from; i < to; ++i) {
            if (valid != nullptr && valid[i] == 0) continue;
            for (int64_t b = 0; b < bands; ++b) {
              uint32_t bits;
              std::memcpy(&bits, images + i * bands + b, sizeof(bits));
              const uint32_t exponent = (bits >> 23) & 0xFFu;
              if (exponent == 0xFFu) continue;
              const uint32_t magnitude = (bits & 0x7FFFFFu) | (exponent != 0 ? 0x800000u : 0u);
              const auto slot = static_cast<size_t>(b * kExponents + (exponent != 0 ? exponent : 1));
              first[slot] += (bits & 0x80000000u) != 0 ? -int64_t{magnitude} : int64_t{magnitude};
              squares[slot] += uint64_t{magnitude} * magnitude;
              const uint32_t order = ordered_bits(images[i * bands + b]);
              ++counts[static_cast<size_t>(b * kFloatBins + (order >> 16))];
              least[static_cast<size_t>(b)] = std::min(least[static_cast<size_t>(b)], order);
              greatest[static_cast<size_t>(b)] = std::max(greatest[static_cast<size_t>(b)], order);
            }
          }
          for (size_t k = 0; k < squares.size(); ++k) {
            low[k] += static_cast<int64_t>(squares[k] & 0xFFFFFFFFu);
            high[k] += static_cast<int64_t>(squares[k] >> 32);
            squares[k] = 0;
          }
        }
        std::lock_guard<std::mutex> hold(lock);
        for (size_t k = 0; k < counts.size(); ++k) histogram[k] += counts[k];
        for (int64_t b = 0; b < bands; ++b) {
          for (int64_t e = 0; e < kExponents; ++e) {
            const auto k = static_cast<size_t>(b * kExponents + e);
            sums[(b * 3 + 0) * kExponents + e] += first[k];
            sums[(b * 3 + 1) * kExponents + e] += low[k];
            sums[(b * 3 + 2) * kExponents + e] += high[k];
          }
          extrema[2 * b] = std::min(extrema[2 * b], least[static_cast<size_t>(b)]);
          extrema[2 * b + 1] = std::max(extrema[2 * b + 1], greatest[static_cast<size_t>(b)]);
        }
      },
      grain(pixels, threads));
}

}  // namespace rvk
