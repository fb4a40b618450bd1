#include "module_pixels.h"
#include "ops/augment.h"

namespace {

// The data of an array of the given shape, or null for None. The caller's object keeps the array alive.
template <typename T>
T* optional(const py::object& object, const char* name, const std::vector<py::ssize_t>& shape, bool writeable = false) {
  if (object.is_none()) return nullptr;
  const auto a = rvk::checked<T>(object, name, static_cast<int>(shape.size()), writeable);
  rvk::expect_shape(a, name, shape);
  return const_cast<T*>(a.data());
}

template <typename T>
T* argument(const py::dict& all, const char* name, const std::vector<py::ssize_t>& shape, bool writeable = false) {
  return optional<T>(all[name], name, shape, writeable);
}

}  // namespace

RVK_BIND(augment) {
  m.def("augment", [](const py::kwargs& a) {
    rvk::Augment job{};
    job.images = rvk::checked_pixels(a["images"], "images", 4);
    const auto images = py::reinterpret_borrow<py::array>(a["images"]);
    const auto index = rvk::checked<int64_t>(a["index"], "index", 1);
    const rvk::OutPixels to = rvk::checked_out_pixels(a["out"], "out", 4, a["bfloat16"].cast<bool>());
    const py::array& out = to.array;
    const py::ssize_t all = images.shape(0), n = index.size();
    job.rows = images.shape(1);
    job.cols = images.shape(2);
    job.bands = images.shape(3);
    if ((job.rows + 2) * (job.cols + 2) * job.bands * rvk::value_size(job.images.type) > INT32_MAX)
      throw py::value_error("images: a chip must have fewer than 2^31 bytes, got shape " + rvk::shape_text(images));
    job.index = index.data();
    job.n = n;
    job.planar = a["planar"].cast<bool>();
    job.out_rows = out.shape(job.planar ? 2 : 1);
    job.out_cols = out.shape(job.planar ? 3 : 2);
    if (out.shape(0) != n || out.shape(job.planar ? 1 : 3) != job.bands)
      throw py::value_error("out: got shape " + rvk::shape_text(out) + ", which does not fit index and images");
    for (int64_t i = 0; i < n; ++i)
      if (job.index[i] < 0 || job.index[i] >= all)
        throw py::value_error("index: " + std::to_string(job.index[i]) + " is not a row of images " +
                              rvk::shape_text(images));
    job.labels = argument<uint8_t>(a, "labels", {all, job.rows, job.cols});
    job.map = argument<int64_t>(a, "map", {n, 6});
    job.gain = argument<float>(a, "gain", {n});
    job.offset = argument<float>(a, "offset", {n, job.bands});
    job.gamma = argument<float>(a, "gamma", {n});
    job.matrix = argument<float>(a, "matrix", {n, 3, 3});
    job.radius = argument<int32_t>(a, "radius", {n});
    if (job.radius) {
      job.taps = py::reinterpret_borrow<py::array>(a["weights"]).shape(1);
      job.weights = argument<float>(a, "weights", {n, job.taps});
      for (int64_t i = 0; i < n; ++i)
        if (job.radius[i] < 0 || job.radius[i] >= job.taps) throw py::value_error("radius: more than weights has");
    }
    job.noise = argument<float>(a, "noise", {n});
    if (!a["holes"].is_none()) {
      job.hole_count = py::reinterpret_borrow<py::array>(a["holes"]).shape(1);
      job.holes = argument<int32_t>(a, "holes", {n, job.hole_count, 4});
      for (int64_t i = 0; i < n * job.hole_count; ++i) {
        const int32_t* hole = job.holes + 4 * i;
        if (hole[1] < 0 || hole[1] > hole[3] || hole[3] > job.out_cols)
          throw py::value_error("holes: outside the image");
      }
    }
    job.dropped = argument<uint8_t>(a, "dropped", {n, job.bands});
    job.mean = argument<float>(a, "mean", {job.bands});
    job.inverse = argument<float>(a, "inverse", {job.bands});
    if (!job.mean != !job.inverse) throw py::value_error("mean, inverse: expected both or neither");
    job.fill = argument<float>(a, "fill", {job.bands});
    job.peak = a["peak"].cast<float>();
    job.seed = a["seed"].cast<uint64_t>();
    job.epoch = a["epoch"].cast<uint32_t>();
    job.noise_op = a["noise_op"].cast<uint32_t>();
    job.out = to.data;
    job.out_type = to.type;
    job.out_labels = argument<uint8_t>(a, "out_labels", {n, job.out_rows, job.out_cols}, true);
    const int threads = a["threads"].cast<int>();
    py::gil_scoped_release release;
    rvk::augment(job, threads);
  });
}
