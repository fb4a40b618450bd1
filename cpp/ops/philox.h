// Random words as a pure function of (seed, epoch, sample, op, position): any order of work gives the same words.
// Key: the seed's low and high 32 bits. Counter of block i: (i, op, sample, epoch); word w of block i is number 4i + w
// of the stream (op, sample, epoch). A uniform number in [0, 1) is (word >> 8) * 2^-24.
#pragma once

#include <cstdint>

namespace rvk {

// Which stream of random words: op says what they are for, sample whom.
struct Stream {
  uint64_t seed;
  uint32_t epoch, sample, op;
};

// words (n, 4): the block of each counter (n, 4).
void philox_blocks(const uint32_t* counters, int64_t n, uint64_t seed, uint32_t* words, int threads);

// The first `count` words of a stream.
void philox_bits(const Stream& stream, int64_t count, uint32_t* words, int threads);

// The first `count` uniform numbers of a stream.
void philox_uniform(const Stream& stream, int64_t count, float* values, int threads);

// order (n): the numbers 0 .. n-1 sorted by 64-bit keys; key i is words 2i (low half) and 2i + 1 (high half) of the
// stream. Equal keys keep their order.
void philox_permutation(const Stream& stream, int64_t n, int64_t* order);

}  // namespace rvk
