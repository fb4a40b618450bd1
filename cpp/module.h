// Registration of bindings and the checks every binding makes on its arrays. Only module_*.cpp include this file.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

namespace py = pybind11;

namespace rvk {

using Bind = void (*)(py::module_&);

inline std::vector<Bind>& bindings() {
  static std::vector<Bind> all;
  return all;
}

struct Registration {
  explicit Registration(Bind bind) { bindings().push_back(bind); }
};

inline std::string shape_text(const py::ssize_t* shape, size_t ndim) {
  std::string s = "(";
  for (size_t i = 0; i < ndim; ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + ")";
}

inline std::string shape_text(const py::array& a) { return shape_text(a.shape(), static_cast<size_t>(a.ndim())); }

inline py::dtype dtype_of(const py::object& object, const char* name) {
  if (!py::isinstance<py::array>(object)) throw py::value_error(std::string(name) + ": expected a NumPy array");
  return py::reinterpret_borrow<py::array>(object).dtype();
}

// The object as a C-contiguous array of `dtype` with `ndim` axes, or a ValueError naming the argument. Never copies.
inline py::array checked(const py::object& object, const char* name, const py::dtype& dtype, int ndim,
                         bool writeable = false) {
  const py::dtype got = dtype_of(object, name);
  const auto a = py::reinterpret_borrow<py::array>(object);
  if (!dtype.equal(got))
    throw py::value_error(std::string(name) + ": expected dtype " + std::string(py::str(dtype)) + ", got " +
                          std::string(py::str(got)));
  if (a.ndim() != ndim)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(ndim) + " axes, got shape " +
                          shape_text(a));
  if (!(a.flags() & py::array::c_style))
    throw py::value_error(std::string(name) + ": must be C-contiguous; pass numpy.ascontiguousarray(" + name + ")");
  if (writeable && !a.writeable()) throw py::value_error(std::string(name) + ": must be writeable");
  return a;
}

template <typename T>
py::array_t<T> checked(const py::object& object, const char* name, int ndim, bool writeable = false) {
  return py::reinterpret_borrow<py::array_t<T>>(checked(object, name, py::dtype::of<T>(), ndim, writeable));
}

inline void expect_shape(const py::array& a, const char* name, const std::vector<py::ssize_t>& shape) {
  const auto ndim = static_cast<size_t>(a.ndim());
  if (ndim == shape.size() && std::equal(shape.begin(), shape.end(), a.shape())) return;
  throw py::value_error(std::string(name) + ": expected shape " + shape_text(shape.data(), shape.size()) + ", got " +
                        shape_text(a));
}

}  // namespace rvk

// RVK_BIND(confusion) { m.def(...); } in module_confusion.cpp adds to _core when the module is imported.
#define RVK_BIND(op)                                       \
  static void bind_##op(py::module_& m);                   \
  static const rvk::Registration register_##op(bind_##op); \
  static void bind_##op(py::module_& m)
