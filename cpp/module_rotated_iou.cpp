#include "module.h"
#include "ops/rotated_iou.h"

RVK_BIND(rotated_iou) {
  m.def("rotated_iou", [](const py::object& a, const py::object& b, const py::object& out, int threads) {
    auto first = rvk::checked<double>(a, "a", 2);
    auto second = rvk::checked<double>(b, "b", 2);
    auto result = rvk::checked<double>(out, "out", 2, true);
    const double* a_data = first.data();
    const double* b_data = second.data();
    double* out_data = result.mutable_data();
    const int64_t n = first.shape(0);
    const int64_t count = second.shape(0);
    py::gil_scoped_release release;
    rvk::rotated_iou(a_data, n, b_data, count, out_data, threads);
  });
}
