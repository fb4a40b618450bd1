#include "module_statistics.h"

#include "ops/statistics.h"

namespace {

template <typename T>
void run(const py::object& images, const py::object& valid, const py::object& histogram, const py::object& sums,
         const py::object& extrema, int threads) {
  const auto x = rvk::checked<T>(images, "images", 2);
  const rvk::Totals totals = rvk::totals(histogram, sums, extrema);
  const uint8_t* mask = valid.is_none() ? nullptr : rvk::checked<uint8_t>(valid, "valid", 1).data();
  const T* pixels = x.data();
  const int64_t n = x.shape(0);
  const int64_t bands = x.shape(1);
  py::gil_scoped_release release;
  rvk::statistics(pixels, mask, n, bands, totals, threads);
}

}  // namespace

RVK_BIND(statistics) {
  m.def("statistics_uint8", &run<uint8_t>);
  m.def("statistics_uint16", &run<uint16_t>);
  m.def("statistics_int16", &run<int16_t>);
  m.def("statistics_float32", &run<float>);
}
