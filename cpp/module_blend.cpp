#include "module.h"
#include "ops/blend.h"

namespace {

// Arrays checked with the GIL held, for use without it.
struct Sums {
  Sums(const py::object& total, int64_t rows, const py::object& row, const py::object& col, const py::object& window,
       int64_t crop)
      : total_(rvk::checked<float>(total, "total", 3, true)),
        row_(rvk::checked<int64_t>(row, "row", 1)),
        col_(rvk::checked<int64_t>(col, "col", 1)),
        window_(rvk::checked<float>(window, "window", 1)),
        canvas{total_.mutable_data(), rows, total_.shape(1), total_.shape(2), total_.shape(0)},
        chips{row_.data(), col_.data(), row_.size(), window_.data(), window_.size(), crop} {}

 private:
  py::array_t<float> total_;
  py::array_t<int64_t> row_, col_;
  py::array_t<float> window_;

 public:
  rvk::BlendCanvas canvas;
  rvk::BlendChips chips;
};

void add(const py::object& total, int64_t rows, const py::object& row, const py::object& col, const py::object& window,
         int64_t crop, const py::object& scores, int threads) {
  const Sums sums(total, rows, row, col, window, crop);
  auto s = rvk::checked<float>(scores, "scores", 4);
  const float* s_data = s.data();
  py::gil_scoped_release release;
  rvk::blend_add(sums.canvas, sums.chips, s_data, threads);
}

int64_t finish(const py::object& total, int64_t rows, const py::object& row, const py::object& col,
               const py::object& window, int64_t crop, int64_t first, const py::object& labels, const py::object& means,
               const py::object& quantised, bool clear, int threads) {
  const Sums sums(total, rows, row, col, window, crop);
  auto l = rvk::checked<uint8_t>(labels, "labels", 2, true);
  rvk::Blended out{l.mutable_data(), nullptr, nullptr};
  if (!means.is_none()) out.means = rvk::checked<float>(means, "means", 3, true).mutable_data();
  if (!quantised.is_none()) out.quantised = rvk::checked<uint8_t>(quantised, "quantised", 3, true).mutable_data();
  const int64_t last = first + l.shape(0);
  py::gil_scoped_release release;
  return rvk::blend_finish(sums.canvas, sums.chips, first, last, out, clear, threads);
}

}  // namespace

RVK_BIND(blend) {
  m.def("blend_add", &add);
  m.def("blend_finish", &finish);
}
