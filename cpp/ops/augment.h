// Chips to a training batch in one pass per chip: take, move, colour, blur, noise, cut out, drop bands, normalise.
//
// Geometry. The centre of output pixel (r, c) lies in the source chip at
//   y = map[0] + r * map[1] + c * map[2],   x = map[3] + r * map[4] + c * map[5]
// in units of 2^-32 pixel, so coordinates are exact integers. It is inside where 0 <= y < rows and 0 <= x < cols.
// Images are bilinear: with y' = y - 1/2, x' = x - 1/2, the four pixels around, held at the edges, weighted along x and
// then along y with 24-bit fractions:  a + (b - a) * w. Labels take the pixel that holds (y, x). A map of whole pixels
// is a copy, with the same result. Outside pixels are `fill`, labels 255.
//
// Then, on inside pixels, per value v of band b, float32, in this order, each only when its pointer is not null:
//   v * gain + offset[b];  peak * clamp(v * (1 / peak), 0, 1) ^ gamma;  3 x 3 matrix on the first three bands.
// On all pixels: Gaussian blur, rows then columns, edges held: w[0] * v[0] + sum_k w[k] * (v[-k] + v[k]), k ascending.
// On inside pixels: v + noise * (sum of the four bytes of a random word - 510). The sum has variance 4 (256^2 - 1) / 12
// =
//   21845 and is close to normal (within 3.5 standard deviations). Word i of stream (op, sample, epoch) in row r stands
//   at r * 4 ceil(cols * bands / 4) + i, i = c * bands + b.
// On all pixels: fill in holes (r0, c0, r1, c1), fill in dropped bands, (v - mean) * inverse.
#pragma once

#include <cstdint>

#include "normalize.h"

namespace rvk {

struct Augment {
  Pixels images;  // (all, rows, cols, bands)
  int64_t rows, cols, bands;
  const int64_t* index;  // (n) chips to take
  int64_t n;
  int64_t out_rows, out_cols;
  const uint8_t* labels;  // (all, rows, cols), or null

  const int64_t* map;     // (n, 6)
  const float* gain;      // (n), or null
  const float* offset;    // (n, bands), with gain
  const float* gamma;     // (n), or null
  const float* matrix;    // (n, 3, 3), or null
  const int32_t* radius;  // (n) pixels, or null; 0 = no blur
  const float* weights;   // (n, taps): weight at distance 0, 1, ..., radius
  int64_t taps;
  const float* noise;    // (n), or null
  const int32_t* holes;  // (n, hole_count, 4)
  int64_t hole_count;
  const uint8_t* dropped;  // (n, bands), or null

  const float *mean, *inverse, *fill;  // (bands)
  float peak;
  uint64_t seed;
  uint32_t epoch, noise_op;
  bool planar;

  float* out;           // (n, out_rows, out_cols, bands), or (n, bands, out_rows, out_cols) when planar
  uint8_t* out_labels;  // (n, out_rows, out_cols), with labels
};

void augment(const Augment& job, int threads);

}  // namespace rvk
