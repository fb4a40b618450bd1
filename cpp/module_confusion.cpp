#include "module.h"
#include "ops/confusion.h"

namespace {

template <typename T>
bool run(const py::object& truth, const py::object& predicted, int64_t ignore, const py::object& counts, int threads) {
  auto t = rvk::checked<T>(truth, "truth", 1);
  auto p = rvk::checked<T>(predicted, "predicted", 1);
  auto c = rvk::checked<int64_t>(counts, "counts", 2, true);
  const T* t_data = t.data();
  const T* p_data = p.data();
  int64_t* c_data = c.mutable_data();
  const int64_t n = t.size();
  const int64_t classes = c.shape(0);
  py::gil_scoped_release release;
  return rvk::confusion(t_data, p_data, n, classes, ignore, c_data, threads);
}

}  // namespace

RVK_BIND(confusion) {
  m.def("confusion_uint8", &run<uint8_t>);
  m.def("confusion_uint16", &run<uint16_t>);
  m.def("confusion_int32", &run<int32_t>);
  m.def("confusion_int64", &run<int64_t>);
  m.attr("IGNORE_NOTHING") = rvk::kIgnoreNothing;
}
