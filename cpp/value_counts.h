// Histograms of interleaved bands with one bin per value, exact: what statistics and confusion count with.
//
// Two ways to the same numbers. Tables, on any CPU: one counter per value is raised; several tables per band take
// turns, so that a counter need not wait for its last change where neighbours are alike. Bit slices, for bytes on CPUs
// with AVX-512 VBMI, without the one store per value that bounds tables: 512 values of a band become eight bit planes,
// planes become one mask per upper and one per lower half byte, and a value's count is the number of bits that its two
// masks share. Upper half bytes that a stretch does not have are skipped, so images, whose neighbours are alike, go
// fastest.
#pragma once

#include <cstdint>
#include <vector>

namespace rvk {

// The counts of one thread. T is uint8_t, uint16_t or int16_t.
template <typename T>
class ValueCounts {
 public:
  explicit ValueCounts(int64_t bands);
  // Only the least `values` values of T occur; at least 256.
  ValueCounts(int64_t bands, int64_t values);

  // Pixel i of band b is bands[b][i * step]. valid (pixels): 0 = leave the pixel out; null = all count.
  void add(const T* const* bands, int64_t step, const uint8_t* valid, int64_t pixels);

  // histogram (bands, values from the least) grows by all that was added since the last call.
  void move_to(int64_t* histogram);

 private:
  void tables(const std::vector<const T*>& bands, int64_t step, const uint8_t* valid, int64_t pixels);
  void slices(const std::vector<const T*>& bands, int64_t step, const uint8_t* valid, int64_t pixels);
  void flush(const uint8_t* ahead);

  int64_t bands_, values_;
  int64_t bins_;  // of a table
  bool sliced_;
  int64_t turns_;                 // tables per band
  int64_t pending_ = 0;           // pixels in counts_, whose counters hold 32 bits
  std::vector<uint32_t> counts_;  // (turns, bands, bins)
  std::vector<int64_t> spilled_;  // (bands, values), empty until counts_ could overflow
  // Slices: a block of pixels, so that short runs are counted together.
  int64_t filled_ = 0, kept_ = 0;  // pixels in the block, in 64s; and how many of them count
  std::vector<uint8_t> planes_;    // (bands, block)
  std::vector<uint64_t> bits_;     // one per pixel: whether it counts
};

}  // namespace rvk
