#include "module.h"
#include "ops/windows.h"

namespace {

void place(const py::object& coords_in, const py::object& ring_start_in, const py::object& windows_in,
           const py::object& out_in, int threads) {
  const auto coords = rvk::checked<double>(coords_in, "coords", 2);
  const auto ring_start = rvk::checked<int64_t>(ring_start_in, "ring_start", 1);
  const auto windows = rvk::checked<int64_t>(windows_in, "windows", 2);
  auto out = rvk::checked<uint8_t>(out_in, "out", 1, true);
  const double* points = coords.data();
  const int64_t* rings = ring_start.data();
  const int64_t* first = windows.data();
  uint8_t* places = out.mutable_data();
  const int64_t n = windows.shape(0), count = ring_start.shape(0) - 1;
  py::gil_scoped_release release;
  rvk::Area(points, rings, count).place(first, n, places, threads);
}

void count(const py::object& mask_in, const py::object& wanted_in, const py::object& windows_in,
           const py::object& out_in, int threads) {
  const auto mask = rvk::checked<uint8_t>(mask_in, "mask", 2);
  const auto wanted = rvk::checked<uint8_t>(wanted_in, "wanted", 1);
  const auto windows = rvk::checked<int64_t>(windows_in, "windows", 2);
  auto out = rvk::checked<int64_t>(out_in, "out", 1, true);
  const uint8_t *pixels = mask.data(), *table = wanted.data();
  const int64_t* first = windows.data();
  int64_t* counts = out.mutable_data();
  const int64_t n = windows.shape(0), rows = mask.shape(0), cols = mask.shape(1);
  py::gil_scoped_release release;
  rvk::count_in_windows(pixels, rows, cols, table, first, n, counts, threads);
}

}  // namespace

RVK_BIND(windows) {
  m.def("windows_place", &place, py::arg("coords"), py::arg("ring_start"), py::arg("windows"), py::arg("out"),
        py::arg("threads"));
  m.def("windows_count", &count, py::arg("mask"), py::arg("wanted"), py::arg("windows"), py::arg("out"),
        py::arg("threads"));
}
