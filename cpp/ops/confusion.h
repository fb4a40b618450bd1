// Confusion matrix: counts[t * classes + p] = how many positions have truth t and prediction p.
//
//   truth, predicted  n values of the same type (uint8, uint16, int32 or int64)
//   ignore            positions whose truth is `ignore` are left out; so are those whose prediction is `ignore`, when
//                     `ignore` is no class. kIgnoreNothing leaves nothing out.
//   counts            classes * classes, added to
// Returns false, with `counts` in an unspecified state, when a value that is neither a class nor `ignore` was met.
#pragma once

#include <cstdint>

namespace rvk {

constexpr int64_t kIgnoreNothing = INT64_MIN;

template <typename T>
bool confusion(const T* truth, const T* predicted, int64_t n, int64_t classes, int64_t ignore, int64_t* counts,
               int threads);

}  // namespace rvk
