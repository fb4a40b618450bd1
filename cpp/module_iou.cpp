#include "module.h"
#include "ops/iou.h"

RVK_BIND(iou) {
  m.def("iou", [](const py::object& a, const py::object& b, const py::object& out, int threads) {
    auto first = rvk::checked<float>(a, "a", 2);
    auto second = rvk::checked<float>(b, "b", 2);
    auto result = rvk::checked<float>(out, "out", 2, true);
    const float* a_data = first.data();
    const float* b_data = second.data();
    float* out_data = result.mutable_data();
    const int64_t n = first.shape(0);
    const int64_t count = second.shape(0);
    py::gil_scoped_release release;
    rvk::iou(a_data, n, b_data, count, out_data, threads);
  });
}
