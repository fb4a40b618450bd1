// Chips to a training batch in one pass per chip: take, move, colour, blur, noise, cut out, drop bands, normalise.
//
// Geometry. The centre of output pixel (r, c) lies in the source chip at
//   y = map[0] + r * map[1] + c * map[2],   x = map[3] + r * map[4] + c * map[5]
// in units of 2^-32 pixel, so coordinates are exact integers. It is inside where 0 <= y < rows and 0 <= x < cols.
// Images are bilinear, labels take the pixel that holds (y, x): cpp/interpolate.h. A map of whole pixels along the axes
// is a copy, with the same result. Outside pixels are `fill`, labels 255.
//
// Then, on inside pixels, per value v of band b, float32, in this order, each only when its pointer is not null:
//   v * gain + offset[b];  gamma: with x = v * (1 / peak), peak * power(min(x, 1), gamma) where x > kLeastPower, and
//   x * 0 elsewhere;  3 x 3 matrix on the first three bands.
// power(x, g) = exp2(g * log2(x)) for g <= 4 by polynomials in float32, so that every machine has the same bits; it is
// within 2e-5 of the true value, relatively. With x = 2^e m, e whole, 1/sqrt(2) <= m < sqrt(2), t = m - 1, and with
// y = g * log2(x), n = y rounded to nearest even, f = y - n,
//   log2(x) = e + t * ((L0 + L1 t) + t^2 ((L2 + L3 t) + t^2 (L4 + L5 t))),
//   exp2(y) = 2^n * (1 + f * ((E0 + E1 f) + f^2 (E2 + E3 f))).
//
// On all pixels: Gaussian blur, rows then columns, edges held: w[0] * v[0] + sum_k w[k] * (v[-k] + v[k]), k ascending.
//
// On inside pixels: v + noise * s, s from stream (op, sample, epoch) of Philox. A row has `noise_blocks` blocks; row r
// begins with block r * noise_blocks. With i = b * cols + c the place of the value in its row, j = i % noise_blocks and
// 4 w + k = i / noise_blocks, s is sum k of the bytes a, b, c, d (least first) of word w of block j of the row:
//   a + b + c + d - 510,   a + b - c - d,   a - b + c - d,   a - b - c + d.
// Each has variance 4 (256^2 - 1) / 12 = 21845 and is close to normal (within 3.5 standard deviations); the four are
// uncorrelated, for the signs are orthogonal, so one word serves four values, a quarter of its row apart.
//
// On all pixels: fill in holes (r0, c0, r1, c1), fill in dropped bands, (v - mean) * inverse, then the type of the
// output as join_row (cpp/pixels.h) has it.
#pragma once

#include <cstdint>

#include "pixels.h"

namespace rvk {

constexpr float kLog[] = {1.4427135f, -0.721131861f, 0.479348004f, -0.367489964f, 0.32215482f, -0.20659177f};
constexpr float kExp[] = {0.693121552f, 0.240220204f, 0.0559196882f, 0.00968190935f};
constexpr float kLeastPower = 0x1p-31f;

// Blocks of noise for a row of so many values: sixteen values each, and a multiple of sixteen.
constexpr int64_t noise_blocks(int64_t values) { return (values + 255) / 256 * 16; }

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

  const float *mean, *inverse;  // (bands), or both null: values stay as they are
  const float* fill;            // (bands)
  float peak;
  uint64_t seed;
  uint32_t epoch, noise_op;
  bool planar;

  void* out;  // (n, out_rows, out_cols, bands), or (n, bands, out_rows, out_cols) when planar
  PixelType out_type;
  uint8_t* out_labels;  // (n, out_rows, out_cols), with labels
};

void augment(const Augment& job, int threads);

}  // namespace rvk
