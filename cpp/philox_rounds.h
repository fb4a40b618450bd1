// Philox 4x32-10: ten rounds of multiply and xor turn a 128-bit counter and a 64-bit key into four random words.
// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi:10.1145/2063384.2063405.
#pragma once

#include <array>
#include <cstdint>

#include "dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 means its own _mm512_undefined_epi32 (bug 105593)
#endif

namespace rvk {

using PhiloxBlock = std::array<uint32_t, 4>;

struct PhiloxKey {
  uint32_t low, high;
  explicit PhiloxKey(uint64_t seed) : low(static_cast<uint32_t>(seed)), high(static_cast<uint32_t>(seed >> 32)) {}
};

// Ten rounds on `lanes` independent counters x[word][lane], in place. The lane loop is the inner one, so it vectorises.
template <int lanes>
inline RVK_INLINE void philox_rounds(uint32_t (&x)[4][lanes], PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < lanes; ++i) {
      const uint64_t a = uint64_t{0xD2511F53} * x[0][i];
      const uint64_t b = uint64_t{0xCD9E8D57} * x[2][i];
      x[0][i] = static_cast<uint32_t>(b >> 32) ^ x[1][i] ^ key.low;
      x[1][i] = static_cast<uint32_t>(b);
      x[2][i] = static_cast<uint32_t>(a >> 32) ^ x[3][i] ^ key.high;
      x[3][i] = static_cast<uint32_t>(a);
    }
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
}

// 32 blocks whose counters are (first + i, op, sample, epoch), written block after block: 128 words. The first counter
// word wraps around at 2^32. GCC unrolls 16 lanes or fewer whole, and then mostly fails to vectorise them.
inline RVK_INLINE void philox_32(uint32_t first, uint32_t op, uint32_t sample, uint32_t epoch, PhiloxKey key,
                                 uint32_t* words) {
  uint32_t x[4][32];
  for (int i = 0; i < 32; ++i) {
    x[0][i] = first + static_cast<uint32_t>(i);
    x[1][i] = op;
    x[2][i] = sample;
    x[3][i] = epoch;
  }
  philox_rounds<32>(x, key);
  for (int i = 0; i < 32; ++i)
    for (int w = 0; w < 4; ++w) words[4 * i + w] = x[w][i];
}

#if defined(__x86_64__)

// The high and the low halves of sixteen products.
RVK_V4 inline RVK_INLINE void multiply_wide(__m512i x, uint32_t factor, __m512i& high, __m512i& low) {
  const __m512i wide = _mm512_set1_epi64(factor);
  const __m512i even = _mm512_mul_epu32(x, wide), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), wide);
  high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
  low = _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_CCAA);
}

// philox_rounds on sixteen counters, x[word].
RVK_V4 inline RVK_INLINE void philox_rounds_v4(__m512i (&x)[4], PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    __m512i a_high, a_low, b_high, b_low;
    multiply_wide(x[0], 0xD2511F53, a_high, a_low);
    multiply_wide(x[2], 0xCD9E8D57, b_high, b_low);
    constexpr int kXor3 = 0x96;
    x[0] = _mm512_ternarylogic_epi32(b_high, x[1], _mm512_set1_epi32(static_cast<int32_t>(key.low)), kXor3);
    x[1] = b_low;
    x[2] = _mm512_ternarylogic_epi32(a_high, x[3], _mm512_set1_epi32(static_cast<int32_t>(key.high)), kXor3);
    x[3] = a_low;
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
}

#endif

inline PhiloxBlock philox(const PhiloxBlock& counter, PhiloxKey key) {
  uint32_t x[4][1] = {{counter[0]}, {counter[1]}, {counter[2]}, {counter[3]}};
  philox_rounds<1>(x, key);
  return {x[0][0], x[1][0], x[2][0], x[3][0]};
}

}  // namespace rvk
