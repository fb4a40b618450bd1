#include "module.h"
#include "ops/blend.h"

namespace {

rvk::BlendCanvas canvas_of(py::array_t<float>& total, py::array_t<float>& weight) {
  return {total.mutable_data(), weight.mutable_data(), total.shape(0), total.shape(1), total.shape(2)};
}

void add(const py::object& total, const py::object& weight, const py::object& scores, const py::object& row,
         const py::object& col, const py::object& window, int64_t crop, int threads) {
  auto t = rvk::checked<float>(total, "total", 3, true);
  auto w = rvk::checked<float>(weight, "weight", 2, true);
  auto s = rvk::checked<float>(scores, "scores", 4);
  auto r = rvk::checked<int64_t>(row, "row", 1);
  auto c = rvk::checked<int64_t>(col, "col", 1);
  auto v = rvk::checked<float>(window, "window", 1);
  const auto canvas = canvas_of(t, w);
  const float* s_data = s.data();
  const int64_t* r_data = r.data();
  const int64_t* c_data = c.data();
  const float* v_data = v.data();
  const int64_t n = s.shape(0);
  const int64_t size = v.size();
  py::gil_scoped_release release;
  rvk::blend_add(canvas, s_data, r_data, c_data, n, v_data, size, crop, threads);
}

int64_t finish(const py::object& total, const py::object& weight, const py::object& labels, int threads) {
  auto t = rvk::checked<float>(total, "total", 3, true);
  auto w = rvk::checked<float>(weight, "weight", 2, true);
  auto l = rvk::checked<uint8_t>(labels, "labels", 2, true);
  const auto canvas = canvas_of(t, w);
  uint8_t* l_data = l.mutable_data();
  py::gil_scoped_release release;
  return rvk::blend_finish(canvas, l_data, threads);
}

}  // namespace

RVK_BIND(blend) {
  m.def("blend_add", &add);
  m.def("blend_finish", &finish);
}
