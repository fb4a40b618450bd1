#include <algorithm>
#include <utility>

#include "module.h"
#include "ops/polygonize.h"

namespace {

py::array_t<int64_t> copied(const std::vector<int64_t>& values) {
  return py::array_t<int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

// The points as a new array of P; `write` fills it without the lock.
template <typename P, typename Write>
py::array written(int64_t points, Write write) {
  py::array_t<P> coords(std::vector<py::ssize_t>{static_cast<py::ssize_t>(points), 2});
  P* out = coords.mutable_data();
  {
    py::gil_scoped_release release;
    write(out);
  }
  return std::move(coords);
}

template <typename T>
py::tuple polygonize(const py::object& labels, const py::object& background, bool diagonal, int64_t min_area,
                     const py::object& transform, int threads, int64_t most_pieces) {
  auto l = rvk::checked<T>(labels, "labels", 2);
  const bool any = !background.is_none();
  const rvk::LabelRaster<T> raster{l.data(), l.shape(0), l.shape(1), any, any ? background.cast<T>() : T{0}};
  const rvk::RegionRules rules{diagonal, min_area, most_pieces};
  const auto found = [&] {
    py::gil_scoped_release release;
    return rvk::Polygonizer(raster, rules, threads);
  }();
  py::array coords;
  if (transform.is_none()) {
    coords = written<int32_t>(found.points(), [&](int32_t* out) { found.write(out, threads); });
  } else {
    const double* six = rvk::checked<double>(transform, "transform", 1).data();
    coords = written<double>(found.points(), [&](double* out) { found.write(six, out, threads); });
  }
  py::array_t<T> values(static_cast<py::ssize_t>(found.first_pixel().size()));
  std::transform(found.first_pixel().begin(), found.first_pixel().end(), values.mutable_data(),
                 [&](int64_t pixel) { return raster.data[pixel]; });
  return py::make_tuple(coords, copied(found.ring_start()), copied(found.polygon_start()), values);
}

}  // namespace

RVK_BIND(polygonize) {
  using namespace py::literals;
  const int64_t most = rvk::RegionRules{}.most_pieces;
  m.def("polygonize_uint8", &polygonize<uint8_t>, "labels"_a, "background"_a, "diagonal"_a, "min_area"_a, "transform"_a,
        "threads"_a, "most_pieces"_a = most);
  m.def("polygonize_int32", &polygonize<int32_t>, "labels"_a, "background"_a, "diagonal"_a, "min_area"_a, "transform"_a,
        "threads"_a, "most_pieces"_a = most);
}
