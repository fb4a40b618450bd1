// The arrays that statistics grow in, for the modules that bind them.
#pragma once

#include "module.h"
#include "ops/statistics.h"

namespace rvk {

// sums and extrema are None for integers.
inline Totals totals(const py::object& histogram, const py::object& sums, const py::object& extrema) {
  Totals to{checked<int64_t>(histogram, "histogram", 2, true).mutable_data(), nullptr, nullptr};
  if (!sums.is_none()) to.sums = checked<int64_t>(sums, "sums", 3, true).mutable_data();
  if (!extrema.is_none()) to.extrema = checked<uint32_t>(extrema, "extrema", 2, true).mutable_data();
  return to;
}

}  // namespace rvk
