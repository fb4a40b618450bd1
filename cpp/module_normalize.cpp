#include "module_pixels.h"
#include "ops/normalize.h"

RVK_BIND(normalize) {
  m.def("normalize", [](const py::object& images, const py::object& mean_object, const py::object& inverse_object,
                        bool planar, const py::object& out_object, bool bfloat16, int threads) {
    const rvk::Pixels from = rvk::checked_pixels(images, "images", 4);
    const auto shape = py::reinterpret_borrow<py::array>(images);
    const auto mean = rvk::checked<float>(mean_object, "mean", 1);
    const auto inverse = rvk::checked<float>(inverse_object, "inverse", 1);
    const rvk::OutPixels out = rvk::checked_out_pixels(out_object, "out", 4, bfloat16);
    const int64_t n = shape.shape(0), pixels = shape.shape(1) * shape.shape(2), bands = shape.shape(3);
    if (mean.size() != bands || inverse.size() != bands || out.array.size() != shape.size())
      throw py::value_error("mean, std, out: expected the bands and the size of images " + rvk::shape_text(shape));
    py::gil_scoped_release release;
    rvk::normalize(from, n, pixels, bands, mean.data(), inverse.data(), planar, out.data, out.type, threads);
  });
}
