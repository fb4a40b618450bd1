// An image array of any of the three pixel types, for the bindings that read chips.
#pragma once

#include "module.h"
#include "ops/normalize.h"

namespace rvk {

inline Pixels checked_pixels(const py::object& object, const char* name, int ndim) {
  if (!py::isinstance<py::array>(object)) throw py::value_error(std::string(name) + ": expected a NumPy array");
  const py::dtype type = py::reinterpret_borrow<py::array>(object).dtype();
  if (type.equal(py::dtype::of<uint8_t>())) return {checked<uint8_t>(object, name, ndim).data(), PixelType::u8};
  if (type.equal(py::dtype::of<uint16_t>())) return {checked<uint16_t>(object, name, ndim).data(), PixelType::u16};
  if (type.equal(py::dtype::of<float>())) return {checked<float>(object, name, ndim).data(), PixelType::f32};
  throw py::value_error(std::string(name) + ": expected dtype uint8, uint16 or float32, got " +
                        std::string(py::str(type)));
}

}  // namespace rvk
