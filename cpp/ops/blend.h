// Weighted overlap of chip scores on a scene.
//
//   total[y, x, c]  += w(y - row, x - col) * scores[chip, y - row, x - col, c]
//   weight[y, x]    += w(y - row, x - col)        w(i, j) = window[i] * window[j]
//   mean             = total / weight;  label = the class with the greatest mean, ties by lowest class
// All float32, each step rounded in the order written, chips in the order given: every pixel belongs to one strip of
// rows and every strip to one thread, so the result does not depend on the number of threads.
#pragma once

#include <cstdint>

namespace rvk {

struct BlendCanvas {
  float* total;   // (rows, cols, classes)
  float* weight;  // (rows, cols)
  int64_t rows, cols, classes;
};

constexpr uint8_t kUnseen = 255;

// Add n chips of (size, size, classes) whose top-left pixels are at (row[i], col[i]), which may lie outside the canvas;
// what falls outside is dropped. `crop` pixels on each side of a chip are left out, except on a side at or beyond
// the edge of the canvas, where no other chip could give them.
void blend_add(const BlendCanvas& canvas, const float* scores, const int64_t* row, const int64_t* col, int64_t n,
               const float* window, int64_t size, int64_t crop, int threads);

// Turn totals into means in place and write labels (rows, cols), kUnseen where no chip was. Returns the index of the
// first pixel whose mean is not finite, or -1.
int64_t blend_finish(const BlendCanvas& canvas, uint8_t* labels, int threads);

}  // namespace rvk
