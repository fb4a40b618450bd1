// The module _raster: GDAL rasters in, arrays out; rvkernels.ops.tile and rvkernels.raster document the functions.
#include <gdal_priv.h>

#include "module.h"
#include "module_statistics.h"
#include "raster/describe.h"
#include "raster/tally.h"
#include "raster/tile.h"

namespace {

py::dict as_dict(const rvk::Description& d) {
  py::dict out;
  out["rows"] = d.rows;
  out["cols"] = d.cols;
  out["bands"] = d.bands;
  out["dtype"] = d.dtype;
  out["crs"] = d.crs.empty() ? py::object(py::none()) : py::object(py::str(d.crs));
  out["transform"] = py::tuple(py::cast(d.transform));
  out["nodata"] = d.nodata ? py::object(py::float_(*d.nodata)) : py::object(py::none());
  out["alpha"] = d.alpha;
  out["mask"] = d.mask;
  out["block"] = py::make_tuple(d.block_rows, d.block_cols);
  out["driver"] = d.driver;
  out["palette"] = d.palette.empty() ? py::object(py::none()) : py::object(py::cast(d.palette));
  return out;
}

GDALDataType pixel_type(const std::string& name) {
  if (name == "uint8") return GDT_Byte;
  if (name == "uint16") return GDT_UInt16;
  if (name == "int16") return GDT_Int16;
  if (name == "float32") return GDT_Float32;
  throw std::invalid_argument("out: expected dtype uint8, uint16, int16 or float32, got " + name);
}

GDALResampleAlg resampling(const std::string& name) {
  if (name == "nearest") return GRA_NearestNeighbour;
  if (name == "bilinear") return GRA_Bilinear;
  if (name == "cubic") return GRA_Cubic;
  if (name == "average") return GRA_Average;
  throw std::invalid_argument("resampling: expected nearest, bilinear, cubic or average, got " + name);
}

// Of an rvkernels.ops.tile.Grid.
rvk::Grid grid_of(const py::object& grid) {
  const py::object crs = grid.attr("crs");
  return {py::cast<int64_t>(grid.attr("rows")), py::cast<int64_t>(grid.attr("cols")),
          py::cast<std::array<double, 6>>(grid.attr("transform")),
          crs.is_none() ? std::string() : py::cast<std::string>(crs)};
}

py::array_t<int64_t> checked_windows(const py::object& object) {
  const auto windows = rvk::checked<int64_t>(object, "windows", 2);
  rvk::expect_shape(windows, "windows", {windows.shape(0), 4});
  return windows;
}

void check_bands(const std::vector<int>& bands, const rvk::Stack& stack) {
  for (const int band : bands)
    if (band < 0 || band >= stack.bands())
      throw std::invalid_argument("bands: expected indices from 0 to " + std::to_string(stack.bands() - 1) + ", got " +
                                  std::to_string(band));
}

std::unique_ptr<rvk::Stack> open_stack(const std::vector<std::string>& paths, double cache_mb, bool direct,
                                       const py::object& grid, const std::string& method) {
  if (!(cache_mb >= 0 && cache_mb < 1e9))
    throw std::invalid_argument("cache_mb: expected a number that is not negative, got " + std::to_string(cache_mb));
  rvk::Stack::Options options;
  options.cache_bytes = static_cast<size_t>(cache_mb * (1 << 20));
  options.direct = direct;
  options.method = resampling(method);
  if (!grid.is_none()) options.grid = grid_of(grid);
  py::gil_scoped_release release;
  return std::make_unique<rvk::Stack>(paths, options);
}

// (rows, cols, transform, crs), the fields of rvkernels.ops.tile.Grid.
py::tuple grid_tuple(const rvk::Grid& grid) {
  return py::make_tuple(grid.rows, grid.cols, py::tuple(py::cast(grid.transform)),
                        grid.crs.empty() ? py::object(py::none()) : py::object(py::str(grid.crs)));
}

// Stack::read with NumPy arrays. out and valid are written in place. Returns the number of blocks decoded.
int64_t read_windows(rvk::Stack& stack, const py::object& windows_in, const std::vector<int>& bands,
                     const py::object& out_in, double fill, const py::object& valid_in, int threads,
                     const std::string& layout) {
  if (layout != "NHWC" && layout != "NCHW") throw std::invalid_argument("layout: expected NHWC or NCHW, got " + layout);
  const auto windows = checked_windows(windows_in);
  check_bands(bands, stack);
  const py::dtype dtype = rvk::dtype_of(out_in, "out");
  const GDALDataType type = pixel_type(py::str(dtype));
  py::array out = rvk::checked(out_in, "out", dtype, 4, true);
  const bool planes = layout == "NCHW";
  const auto n = windows.shape(0), rows = out.shape(planes ? 2 : 1), cols = out.shape(planes ? 3 : 2);
  const auto depth = static_cast<py::ssize_t>(bands.size());
  if (planes)
    rvk::expect_shape(out, "out", {n, depth, rows, cols});
  else
    rvk::expect_shape(out, "out", {n, rows, cols, depth});
  uint8_t* valid = nullptr;
  if (!valid_in.is_none()) {
    auto mask = rvk::checked<uint8_t>(valid_in, "valid", 3, true);
    rvk::expect_shape(mask, "valid", {n, rows, cols});
    valid = mask.mutable_data();
  }
  void* pixels = out.mutable_data();
  const int64_t* first = windows.data();
  py::gil_scoped_release release;
  return stack.read(first, n, rows, cols, bands, type, pixels, fill, valid, threads,
                    planes ? rvk::Layout::nchw : rvk::Layout::nhwc);
}

// rvk::tally with NumPy arrays, which grow in place. Returns the numbers of pixels and of blocks.
std::pair<int64_t, int64_t> statistics(rvk::Stack& stack, const py::object& windows_in, const std::vector<int>& bands,
                                       const std::string& dtype, const py::object& histogram, const py::object& sums,
                                       const py::object& extrema, int threads) {
  const auto windows = checked_windows(windows_in);
  check_bands(bands, stack);
  const rvk::Totals totals = rvk::totals(histogram, sums, extrema);
  const int64_t* first = windows.data();
  const int64_t n = windows.shape(0);
  const GDALDataType type = pixel_type(dtype);
  py::gil_scoped_release release;
  const rvk::Tallied found = rvk::tally(stack, first, n, bands, type, totals, threads);
  return {found.pixels, found.blocks};
}

}  // namespace

PYBIND11_MODULE(_raster, m) {
  m.doc() = "Windows of GDAL rasters; see rvkernels.ops.tile and rvkernels.raster.";
  GDALAllRegister();
  m.attr("codecs") = py::tuple(py::cast(rvk::Tiff::codecs()));  // of TIFF blocks that are decoded without GDAL
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const rvk::Missing& error) {
      PyErr_SetString(PyExc_FileNotFoundError, error.what());
    }
  });

  m.def(
      "describe",
      [](const std::vector<std::string>& paths, int threads) {
        std::vector<rvk::Description> all;
        {
          py::gil_scoped_release release;
          all = rvk::describe_many(paths, threads);
        }
        py::list out;
        for (const auto& d : all) out.append(as_dict(d));
        return out;
      },
      py::arg("paths"), py::arg("threads"));

  m.def(
      "difference",
      [](const py::object& grid, const py::object& other) { return rvk::difference(grid_of(grid), grid_of(other)); },
      py::arg("grid"), py::arg("other"));

  py::class_<rvk::Stack>(m, "Stack")
      .def(py::init(&open_stack), py::arg("paths"), py::arg("cache_mb") = 128.0, py::arg("direct") = true,
           py::arg("grid") = py::none(), py::arg("resampling") = "bilinear")
      .def_property_readonly("grid", [](const rvk::Stack& s) { return grid_tuple(s.grid()); })
      .def_property_readonly("counts",
                             [](const rvk::Stack& s) {
                               py::dict out;
                               out["decoded"] = s.counts().decoded.load();
                               out["by_gdal"] = s.counts().by_gdal.load();
                               out["cached"] = s.counts().cached.load();
                               return out;
                             })
      .def_property_readonly("bands", &rvk::Stack::bands)
      .def_property_readonly("dtype", [](const rvk::Stack& s) { return rvk::type_name(s.type()); })
      .def_property_readonly("descriptions",
                             [](const rvk::Stack& s) {
                               py::list out;
                               for (const auto& d : s.descriptions()) out.append(as_dict(d));
                               return out;
                             })
      .def("read", &read_windows, py::arg("windows"), py::arg("bands"), py::arg("out"), py::arg("fill"),
           py::arg("valid"), py::arg("threads"), py::arg("layout") = "NHWC")
      .def("statistics", &statistics, py::arg("windows"), py::arg("bands"), py::arg("dtype"), py::arg("histogram"),
           py::arg("sums"), py::arg("extrema"), py::arg("threads"));

  py::class_<rvk::Many>(m, "Many")
      .def(py::init<const std::vector<std::string>&>(), py::arg("paths"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("description", [](const rvk::Many& many) { return as_dict(many.first()); })
      .def(
          "read",
          [](rvk::Many& many, const py::object& out_in, int threads) {
            const rvk::Description& first = many.first();
            py::array out = rvk::checked(out_in, "out", py::dtype(first.dtype), 4, true);
            rvk::expect_shape(out, "out", {many.size(), first.rows, first.cols, first.bands});
            void* pixels = out.mutable_data();
            py::gil_scoped_release release;
            many.read(pixels, threads);
          },
          py::arg("out"), py::arg("threads"));
}
