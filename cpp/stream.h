// Stores that leave the caches alone, for output larger than they are: a plain store would first read the line that it
// is about to overwrite. Worth it only for what is not read again soon.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace rvk {

// Output of at least so many bytes is larger than what a core has of the caches.
constexpr int64_t kStreamBytes = int64_t{1} << 23;

// Copies n floats from a buffer in L1. After the last one, stream_end() before other threads may read.
inline void stream(float* to, const float* from, int64_t n) {
#if defined(__x86_64__)
  int64_t i = 0;
  for (; i < n && reinterpret_cast<uintptr_t>(to + i) % 16 != 0; ++i) to[i] = from[i];
  for (; i + 4 <= n; i += 4) _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
  for (; i < n; ++i) to[i] = from[i];
#else
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
#endif
}

inline void stream_end() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace rvk
