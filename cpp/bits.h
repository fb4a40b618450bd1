// The bits of floats as numbers. Unsigned, since sums of bits may wrap around where a lane's result is thrown away.
#pragma once

#include <cstdint>
#include <cstring>

#include "dispatch.h"

namespace rvk {

inline RVK_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline RVK_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// As signed numbers the bits of floats from 0 up are in the order of the floats, and those of negative ones negative.
inline RVK_INLINE int32_t order_of(float value) { return static_cast<int32_t>(bits_of(value)); }

}  // namespace rvk
