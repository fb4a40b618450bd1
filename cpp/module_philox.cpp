#include "module.h"
#include "ops/philox.h"

RVK_BIND(philox) {
  m.def("philox_blocks", [](const py::object& counters_object, uint64_t seed, int threads) {
    const auto counters = rvk::checked<uint32_t>(counters_object, "counters", 2);
    if (counters.shape(1) != 4)
      throw py::value_error("counters: expected shape (n, 4), got " + rvk::shape_text(counters));
    py::array_t<uint32_t> words({counters.shape(0), py::ssize_t{4}});
    uint32_t* to = words.mutable_data();
    const uint32_t* from = counters.data();
    const int64_t n = counters.shape(0);
    py::gil_scoped_release release;
    rvk::philox_blocks(from, n, seed, to, threads);
    return words;
  });
  m.def("philox_bits", [](uint64_t seed, uint32_t epoch, uint32_t sample, uint32_t op, int64_t count, int threads) {
    py::array_t<uint32_t> words(count);
    uint32_t* to = words.mutable_data();
    py::gil_scoped_release release;
    rvk::philox_bits({seed, epoch, sample, op}, count, to, threads);
    return words;
  });
  m.def("philox_uniform", [](uint64_t seed, uint32_t epoch, uint32_t sample, uint32_t op, int64_t count, int threads) {
    py::array_t<float> values(count);
    float* to = values.mutable_data();
    py::gil_scoped_release release;
    rvk::philox_uniform({seed, epoch, sample, op}, count, to, threads);
    return values;
  });
  m.def("philox_permutation", [](uint64_t seed, uint32_t epoch, uint32_t op, int64_t n) {
    py::array_t<int64_t> order(n);
    int64_t* to = order.mutable_data();
    py::gil_scoped_release release;
    rvk::philox_permutation({seed, epoch, 0, op}, n, to);
    return order;
  });
}
