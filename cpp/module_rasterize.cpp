#include <memory>

#include "module.h"
#include "ops/rasterize.h"

namespace {

std::unique_ptr<rvk::Rasterizer> build(const py::object& coords, const py::object& ring_start,
                                       const py::object& part_start, const py::object& feature_start,
                                       const py::object& kinds, const py::object& class_ids, int64_t rows, int64_t cols,
                                       bool all_touched) {
  auto c = rvk::checked<double>(coords, "coords", 2);
  auto r = rvk::checked<int64_t>(ring_start, "ring_start", 1);
  auto p = rvk::checked<int64_t>(part_start, "part_start", 1);
  auto f = rvk::checked<int64_t>(feature_start, "feature_start", 1);
  auto k = rvk::checked<uint8_t>(kinds, "kinds", 1);
  auto v = rvk::checked<int32_t>(class_ids, "class_ids", 1);
  const rvk::GeometryArrays arrays{c.data(), r.data(),     p.data(),     f.data(),
                                   k.data(), r.size() - 1, p.size() - 1, f.size() - 1};
  const int32_t* v_data = v.data();
  py::gil_scoped_release release;
  return std::make_unique<rvk::Rasterizer>(arrays, v_data, rows, cols, all_touched);
}

template <typename T>
void fill(const rvk::Rasterizer& rasterizer, const std::vector<rvk::Window>& list, int32_t background,
          const py::object& out, int threads) {
  auto o = rvk::checked<T>(out, "out", 3, true);
  T* o_data = o.mutable_data();
  py::gil_scoped_release release;
  rasterizer.windows(list.data(), static_cast<int64_t>(list.size()), static_cast<T>(background), o_data, threads);
}

void windows(const rvk::Rasterizer& rasterizer, const py::object& places, int64_t rows, int64_t cols,
             int32_t background, const py::array& out, int threads) {
  auto w = rvk::checked<int64_t>(places, "places", 2);
  std::vector<rvk::Window> list;
  for (py::ssize_t i = 0; i < w.shape(0); ++i) list.push_back({w.at(i, 0), w.at(i, 1), rows, cols});
  switch (out.itemsize()) {
    case 1:
      return fill<uint8_t>(rasterizer, list, background, out, threads);
    case 2:
      return fill<uint16_t>(rasterizer, list, background, out, threads);
    default:
      return fill<int32_t>(rasterizer, list, background, out, threads);
  }
}

}  // namespace

RVK_BIND(rasterize) { py::class_<rvk::Rasterizer>(m, "Rasterizer").def(py::init(&build)).def("windows", &windows); }
