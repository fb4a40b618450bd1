#include "module.h"
#include "ops/components.h"

namespace {

using rvk::RegionStatistics;

// One field of every region as an array (regions,) or (regions, fields).
template <typename T, typename... Field>
py::array_t<T> columns(const std::vector<RegionStatistics>& statistics, Field... field) {
  const auto n = static_cast<py::ssize_t>(statistics.size());
  std::vector<py::ssize_t> shape{n};
  if (sizeof...(field) > 1) shape.push_back(sizeof...(field));
  py::array_t<T> array(shape);
  T* out = array.mutable_data();
  for (const RegionStatistics& s : statistics) ((*out++ = static_cast<T>(s.*field)), ...);
  return array;
}

template <typename T>
py::tuple components(const py::object& labels, const py::object& background, bool diagonal, int64_t min_area,
                     bool statistics, const py::object& out, int threads, int64_t most_pieces) {
  auto l = rvk::checked<T>(labels, "labels", 2);
  auto o = rvk::checked<int32_t>(out, "out", 2, true);
  const bool any = !background.is_none();
  const rvk::LabelRaster<T> raster{l.data(), l.shape(0), l.shape(1), any, any ? background.cast<T>() : T{0}};
  const rvk::RegionRules rules{diagonal, min_area, most_pieces};
  int32_t* o_data = o.mutable_data();
  rvk::Numbered found;
  {
    py::gil_scoped_release release;
    found = rvk::number_regions(raster, rules, statistics, o_data, threads);
  }
  const auto& s = found.statistics;
  using S = RegionStatistics;
  py::array_t<T> value(static_cast<py::ssize_t>(s.size()));
  T* value_data = value.mutable_data();
  for (size_t i = 0; i < s.size(); ++i) value_data[i] = raster.data[s[i].top * raster.cols + s[i].first];
  return py::make_tuple(found.count, columns<int64_t>(s, &S::area),
                        columns<int32_t>(s, &S::top, &S::left, &S::bottom, &S::right),
                        columns<int64_t>(s, &S::row_sum, &S::col_sum), value);
}

}  // namespace

RVK_BIND(components) {
  using namespace py::literals;
  const int64_t most = rvk::RegionRules{}.most_pieces;
  m.def("components_uint8", &components<uint8_t>, "labels"_a, "background"_a, "diagonal"_a, "min_area"_a,
        "statistics"_a, "out"_a, "threads"_a, "most_pieces"_a = most);
  m.def("components_int32", &components<int32_t>, "labels"_a, "background"_a, "diagonal"_a, "min_area"_a,
        "statistics"_a, "out"_a, "threads"_a, "most_pieces"_a = most);
  m.attr("MOST_SIDE") = rvk::kMostSide;
}
