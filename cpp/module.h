// Registration of bindings and the checks every binding makes on its arrays. Only module_*.cpp include this file.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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

inline std::string shape_text(const py::array& a) {
  std::string s = "(";
  for (py::ssize_t i = 0; i < a.ndim(); ++i) s += (i ? ", " : "") + std::to_string(a.shape(i));
  return s + ")";
}

// The array as a C-contiguous array of T with `ndim` axes, or a ValueError that names the argument. Never copies.
template <typename T>
py::array_t<T> checked(const py::object& object, const char* name, int ndim, bool writeable = false) {
  if (!py::isinstance<py::array>(object)) throw py::value_error(std::string(name) + ": expected a NumPy array");
  auto a = py::reinterpret_borrow<py::array>(object);
  if (!py::dtype::of<T>().equal(a.dtype()))
    throw py::value_error(std::string(name) + ": expected dtype " + std::string(py::str(py::dtype::of<T>())) +
                          ", got " + std::string(py::str(a.dtype())));
  if (a.ndim() != ndim)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(ndim) + " axes, got shape " +
                          shape_text(a));
  if (!(a.flags() & py::array::c_style))
    throw py::value_error(std::string(name) + ": must be C-contiguous; pass numpy.ascontiguousarray(" + name + ")");
  if (writeable && !a.writeable()) throw py::value_error(std::string(name) + ": must be writeable");
  return py::reinterpret_borrow<py::array_t<T>>(object);
}

}  // namespace rvk

// RVK_BIND(confusion) { m.def(...); } in module_confusion.cpp adds to _core when the module is imported.
#define RVK_BIND(op)                                       \
  static void bind_##op(py::module_& m);                   \
  static const rvk::Registration register_##op(bind_##op); \
  static void bind_##op(py::module_& m)
