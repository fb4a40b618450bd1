#include "ops/philox.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "parallel.h"
#include "philox_rounds.h"

namespace rvk {

namespace {

constexpr int64_t kChunk = 1 << 14;     // words of a buffer
constexpr int64_t kGrain = 4 * kChunk;  // words a thread takes at a time; a multiple of the 128 words made at once

// words[i] = number begin + i of the stream, for i < count; begin is a multiple of 4.
void fill_words(const Stream& s, int64_t begin, int64_t count, uint32_t* words) {
  dispatch([=]() RVK_INLINE {
    const PhiloxKey key(s.seed);
    for (int64_t i = 0; i < count; i += 128) {
      const auto first = static_cast<uint32_t>((begin + i) / 4);
      if (i + 128 <= count) {
        philox_32(first, s.op, s.sample, s.epoch, key, words + i);
      } else {
        uint32_t last[128];
        philox_32(first, s.op, s.sample, s.epoch, key, last);
        std::copy(last, last + (count - i), words + i);
      }
    }
  });
}

}  // namespace

void philox_blocks(const uint32_t* counters, int64_t n, uint64_t seed, uint32_t* words, int threads) {
  const PhiloxKey key(seed);
  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const uint32_t* c = counters + 4 * i;
          const PhiloxBlock block = philox({c[0], c[1], c[2], c[3]}, key);
          std::copy(block.begin(), block.end(), words + 4 * i);
        }
      },
      kGrain);
}

void philox_bits(const Stream& stream, int64_t count, uint32_t* words, int threads) {
  parallel(
      count, threads, [&](int64_t begin, int64_t end) { fill_words(stream, begin, end - begin, words + begin); },
      kGrain);
}

void philox_uniform(const Stream& stream, int64_t count, float* values, int threads) {
  parallel(
      count, threads,
      [&](int64_t begin, int64_t end) {
        std::vector<uint32_t> words(static_cast<size_t>(std::min(kChunk, end - begin)));
        for (int64_t at = begin; at < end; at += kChunk) {
          const int64_t n = std::min(kChunk, end - at);
          fill_words(stream, at, n, words.data());
          for (int64_t i = 0; i < n; ++i)
            values[at + i] = static_cast<float>(words[static_cast<size_t>(i)] >> 8) * 0x1p-24f;
        }
      },
      kGrain);
}

void philox_permutation(const Stream& stream, int64_t n, int64_t* order) {
  std::vector<uint32_t> words(static_cast<size_t>(2 * n));
  philox_bits(stream, 2 * n, words.data(), 1);
  const auto key = [&](int64_t i) {
    const auto at = static_cast<size_t>(2 * i);
    return uint64_t{words[at + 1]} << 32 | words[at];
  };
  std::iota(order, order + n, int64_t{0});
  std::stable_sort(order, order + n, [&](int64_t a, int64_t b) { return key(a) < key(b); });
}

}  // namespace rvk
