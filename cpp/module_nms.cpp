#include "module.h"
#include "ops/nms.h"

namespace {

template <typename T, typename Threshold, typename Kernel>
py::array_t<int64_t> kept_boxes(Kernel kernel, const py::object& boxes, const py::object& scores,
                                const py::object& classes, Threshold threshold, int threads) {
  auto b = rvk::checked<T>(boxes, "boxes", 2);
  auto s = rvk::checked<float>(scores, "scores", 1);
  auto c = rvk::checked<int32_t>(classes, "classes", 1);
  const T* b_data = b.data();
  const float* s_data = s.data();
  const int32_t* c_data = c.data();
  const int64_t n = s.size();
  std::vector<int64_t> kept;
  {
    py::gil_scoped_release release;
    kept = kernel(b_data, s_data, c_data, n, threshold, threads);
  }
  return py::array_t<int64_t>(static_cast<py::ssize_t>(kept.size()), kept.data());
}

}  // namespace

RVK_BIND(nms) {
  m.def("nms", [](const py::object& boxes, const py::object& scores, const py::object& classes, float threshold,
                  int threads) { return kept_boxes<float>(rvk::nms, boxes, scores, classes, threshold, threads); });
  m.def("nms_rotated",
        [](const py::object& boxes, const py::object& scores, const py::object& classes, double threshold,
           int threads) { return kept_boxes<double>(rvk::nms_rotated, boxes, scores, classes, threshold, threads); });
}
