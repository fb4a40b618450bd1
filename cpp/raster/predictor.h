// Undoing what TIFF does to pixels before it compresses them (TIFF 6.0, section 14; Adobe's note 3 for floats).
#pragma once

#include <cstdint>

namespace rvk {

// Pixels are (rows, cols, samples) of `bytes` (1, 2, 4 or 8) bytes each, in place.

// Turns the bytes of every value around.
void swap_bytes(uint8_t* pixels, int64_t values, int bytes);

// Predictor 2: every value is the difference to the same sample of the pixel on its left, modulo its range.
void undo_differences(uint8_t* pixels, int64_t rows, int64_t cols, int64_t samples, int bytes);

// Predictor 3: a row's bytes are differences to the byte `samples` before; then come the highest bytes of all its
// values, the next lower ones, and so on, whatever the file's byte order. `scratch` has room for a row.
void undo_float_planes(uint8_t* pixels, int64_t rows, int64_t cols, int64_t samples, int bytes, uint8_t* scratch);

}  // namespace rvk
