#include "ops/statistics.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>

#include "dispatch.h"
#include "parallel.h"

namespace rvk {
namespace {

constexpr int64_t kGrain = int64_t{1} << 21;    // values per piece of work, at least
constexpr int64_t kSquares = int64_t{1} << 15;  // squares below 2^48 that surely fit in 64 bits
constexpr int64_t kBlock = 1024;                // values taken apart at a time: stay in the first-level cache
constexpr int64_t kTurns = 4;                   // sums per exponent, so that one need not wait for its last change

// A float32 taken apart. What is left out has the exponent 0, which no value has, and the bin kFloatBins.
struct Apart {
  int32_t whole[kBlock];
  uint32_t exponent[kBlock];
  uint32_t bin[kBlock];
  uint32_t least, greatest;  // ordered bits
};

void take_apart(const float* values, int64_t step, const uint8_t* valid, int64_t n, Apart* apart) {
  dispatch([=]() RVK_INLINE {
    uint32_t least = std::numeric_limits<uint32_t>::max();
    uint32_t greatest = 0;
    for (int64_t i = 0; i < n; ++i) {
      uint32_t bits;
      std::memcpy(&bits, values + i * step, sizeof(bits));
      const uint32_t exponent = (bits >> 23) & 0xFFu;
      const bool used = exponent != 0xFFu && (valid == nullptr || valid[i] != 0);
      const auto magnitude = static_cast<int32_t>((bits & 0x7FFFFFu) | (exponent != 0 ? 0x800000u : 0u));
      const uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
      apart->whole[i] = (bits & 0x80000000u) != 0 ? -magnitude : magnitude;
      apart->exponent[i] = used ? std::max(1u, exponent) : 0;
      apart->bin[i] = used ? order >> 16 : static_cast<uint32_t>(kFloatBins);
      least = std::min(least, used ? order : least);
      greatest = std::max(greatest, used ? order : 0);
    }
    apart->least = least;
    apart->greatest = greatest;
  });
}

}  // namespace

struct FloatSums::Band {
  std::vector<int64_t> counts = std::vector<int64_t>(kFloatBins + 1);
  int64_t first[kExponents][kTurns] = {};
  uint64_t squares[kExponents][kTurns] = {};
  int64_t low[kExponents] = {};
  int64_t high[kExponents] = {};
  uint32_t least = std::numeric_limits<uint32_t>::max();
  uint32_t greatest = 0;

  void spill() {
    for (int64_t e = 0; e < kExponents; ++e) {
      for (uint64_t& square : squares[e]) {
        low[e] += static_cast<int64_t>(square & 0xFFFFFFFFu);
        high[e] += static_cast<int64_t>(square >> 32);
        square = 0;
      }
    }
  }
};

FloatSums::FloatSums(int64_t bands) : bands_(static_cast<size_t>(bands)) {}
FloatSums::~FloatSums() = default;

void FloatSums::add(const float* const* bands, int64_t step, const uint8_t* valid, int64_t pixels) {
  Apart apart;
  for (int64_t at = 0; at < pixels; at += kBlock) {
    const int64_t n = std::min(kBlock, pixels - at);
    if (pending_ + n > kSquares) {
      for (Band& band : bands_) band.spill();
      pending_ = 0;
    }
    pending_ += n;
    for (size_t b = 0; b < bands_.size(); ++b) {
      Band& band = bands_[b];
      take_apart(bands[b] + at * step, step, valid == nullptr ? nullptr : valid + at, n, &apart);
      band.least = std::min(band.least, apart.least);
      band.greatest = std::max(band.greatest, apart.greatest);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t whole = apart.whole[i];
        const uint32_t e = apart.exponent[i];
        band.first[e][i % kTurns] += whole;
        band.squares[e][i % kTurns] += static_cast<uint64_t>(whole * whole);
        ++band.counts[apart.bin[i]];
      }
    }
  }
}

void FloatSums::move_to(const Totals& totals) {
  for (size_t b = 0; b < bands_.size(); ++b) {
    Band& band = bands_[b];
    band.spill();
    for (size_t k = 0; k < kFloatBins; ++k) totals.histogram[b * kFloatBins + k] += band.counts[k];
    int64_t* sums = totals.sums + b * 3 * kExponents;
    for (int64_t e = 1; e < kExponents; ++e) {
      for (const int64_t sum : band.first[e]) sums[e] += sum;
      sums[kExponents + e] += band.low[e];
      sums[2 * kExponents + e] += band.high[e];
    }
    totals.extrema[2 * b] = std::min(totals.extrema[2 * b], band.least);
    totals.extrema[2 * b + 1] = std::max(totals.extrema[2 * b + 1], band.greatest);
    band = Band();
  }
  pending_ = 0;
}

template <typename T>
void statistics(const T* images, const uint8_t* valid, int64_t pixels, int64_t bands, const Totals& totals,
                int threads) {
  // Pieces of bytes balance. Of others there is one for each thread, unless that is too little work for one: a tally is
  // half a megabyte per band.
  const int64_t share = sizeof(T) == 1 ? 0 : (pixels + thread_count(threads) - 1) / thread_count(threads);
  std::mutex lock;
  parallel(
      pixels, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<const T*> from(static_cast<size_t>(bands));
        for (size_t b = 0; b < from.size(); ++b) from[b] = images + begin * bands + b;
        Tally<T> tally(bands);
        tally.add(from.data(), bands, valid == nullptr ? nullptr : valid + begin, end - begin);
        std::lock_guard<std::mutex> hold(lock);
        tally.move_to(totals);
      },
      std::max(kGrain / std::max<int64_t>(1, bands), share));
}

template void statistics(const uint8_t*, const uint8_t*, int64_t, int64_t, const Totals&, int);
template void statistics(const uint16_t*, const uint8_t*, int64_t, int64_t, const Totals&, int);
template void statistics(const int16_t*, const uint8_t*, int64_t, int64_t, const Totals&, int);
template void statistics(const float*, const uint8_t*, int64_t, int64_t, const Totals&, int);

}  // namespace rvk
