// Weighted overlap of chip scores on a scene.
//
//   total[y, x, c]  = sum over chips of w(y - row, x - col) * scores[chip, y - row, x - col, c]
//   weight[y, x]    = sum over chips of w(y - row, x - col)        w(i, j) = window[i] * window[j]
//   mean            = total / weight;  label = the class with the greatest mean, ties by lowest class
// All float32, each step rounded in the order written, chips in the order given. Every pixel belongs to one strip of
// rows and every strip to one thread, so the result does not depend on the number of threads.
#pragma once

#include <cstdint>

namespace rvk {

constexpr uint8_t kUnseen = 255;

// Sums of the rows of a scene that are held at a time: row y of the scene is row y % held of `total`.
struct BlendCanvas {
  float* total;  // (held, cols, classes)
  int64_t rows, cols, classes, held;
};

// n chips of (size, size) whose top-left pixels are at (row[i], col[i]), which may lie outside the scene; what falls
// outside is dropped. `crop` pixels on each side of a chip are left out, except on a side at or beyond the edge of the
// scene, where no other chip could give them.
struct BlendChips {
  const int64_t* row;
  const int64_t* col;
  int64_t n;
  const float* window;
  int64_t size, crop;
};

// Where results go, each (rows asked for, cols[, classes]); null for what is not wanted. `means` may be the canvas
// itself. `quantised` is round(255 * mean), half to even, of means held to [0, 1].
struct Blended {
  uint8_t* labels;
  float* means;
  uint8_t* quantised;
};

// Add chips with scores (n, size, size, classes); all rows they meet must be held.
void blend_add(const BlendCanvas& canvas, const BlendChips& chips, const float* scores, int threads);

// Labels and means of the rows [first, last) of the scene, which must be held, from all chips that were added there, in
// their order; labels are kUnseen and means 0 where no chip was. With `clear` the sums are set to 0, for the rows that
// take their place. Returns the index of the first pixel, counted from row `first`, whose mean is not finite, or -1.
int64_t blend_finish(const BlendCanvas& canvas, const BlendChips& chips, int64_t first, int64_t last,
                     const Blended& out, bool clear, int threads);

}  // namespace rvk
