// Image arrays of any of the pixel types, for the bindings that read and write chips.
#pragma once

#include "module.h"
#include "pixels.h"

namespace rvk {

inline PixelType pixel_type(const py::object& object, const char* name) {
  const py::dtype type = dtype_of(object, name);
  if (type.equal(py::dtype::of<uint8_t>())) return PixelType::u8;
  if (type.equal(py::dtype::of<uint16_t>())) return PixelType::u16;
  if (type.equal(py::dtype::of<int16_t>())) return PixelType::i16;
  if (type.equal(py::dtype::of<float>())) return PixelType::f32;
  throw py::value_error(std::string(name) + ": expected dtype uint8, uint16, int16 or float32, got " +
                        std::string(py::str(type)));
}

inline Pixels checked_pixels(const py::object& object, const char* name, int ndim) {
  const PixelType type = pixel_type(object, name);
  return {checked(object, name, dtype_of(object, name), ndim).data(), type};
}

struct OutPixels {
  py::array array;
  void* data;
  PixelType type;
};

// An array to write. NumPy has no bfloat16 of its own: such an array comes as its bits, uint16, with bfloat16 = true.
inline OutPixels checked_out_pixels(const py::object& object, const char* name, int ndim, bool bfloat16) {
  const PixelType type = bfloat16 ? PixelType::bf16 : pixel_type(object, name);
  py::array array = checked(object, name, bfloat16 ? py::dtype::of<uint16_t>() : dtype_of(object, name), ndim, true);
  return {array, array.mutable_data(), type};
}

}  // namespace rvk
