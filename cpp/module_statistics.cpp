#include "module.h"
#include "ops/statistics.h"

namespace {

// The valid mask's data, or nothing when `valid` is None.
const uint8_t* mask_of(const py::object& valid) {
  return valid.is_none() ? nullptr : rvk::checked<uint8_t>(valid, "valid", 1).data();
}

template <typename T>
void integer(const py::object& images, const py::object& valid, const py::object& histogram, int threads) {
  auto x = rvk::checked<T>(images, "images", 2);
  auto h = rvk::checked<int64_t>(histogram, "histogram", 2, true);
  const T* x_data = x.data();
  const uint8_t* v_data = mask_of(valid);
  int64_t* h_data = h.mutable_data();
  const int64_t pixels = x.shape(0);
  const int64_t bands = x.shape(1);
  py::gil_scoped_release release;
  rvk::statistics_integer(x_data, v_data, pixels, bands, h_data, threads);
}

void floating(const py::object& images, const py::object& valid, const py::object& histogram, const py::object& sums,
              const py::object& extrema, int threads) {
  auto x = rvk::checked<float>(images, "images", 2);
  auto h = rvk::checked<int64_t>(histogram, "histogram", 2, true);
  auto s = rvk::checked<int64_t>(sums, "sums", 3, true);
  auto e = rvk::checked<uint32_t>(extrema, "extrema", 2, true);
  const float* x_data = x.data();
  const uint8_t* v_data = mask_of(valid);
  int64_t* h_data = h.mutable_data();
  int64_t* s_data = s.mutable_data();
  uint32_t* e_data = e.mutable_data();
  const int64_t pixels = x.shape(0);
  const int64_t bands = x.shape(1);
  py::gil_scoped_release release;
  rvk::statistics_float(x_data, v_data, pixels, bands, h_data, s_data, e_data, threads);
}

}  // namespace

RVK_BIND(statistics) {
  m.def("statistics_uint8", &integer<uint8_t>);
  m.def("statistics_uint16", &integer<uint16_t>);
  m.def("statistics_float32", &floating);
}
