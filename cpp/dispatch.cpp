#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace rvk {
namespace {

constexpr Isa kLevels[] = {Isa::baseline, Isa::v3, Isa::v4, Isa::vbmi};

Isa of_cpu() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto all = [](auto... has) { return (has && ...); };
  const bool v3 = all(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("bmi"), __builtin_cpu_supports("bmi2"),
                      __builtin_cpu_supports("fma"), __builtin_cpu_supports("popcnt"));
  const bool v4 = v3 && all(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
                            __builtin_cpu_supports("avx512cd"), __builtin_cpu_supports("avx512dq"),
                            __builtin_cpu_supports("avx512vl"));
  const bool vbmi = v4 && all(__builtin_cpu_supports("avx512vbmi"), __builtin_cpu_supports("avx512vbmi2"),
                              __builtin_cpu_supports("avx512vnni"), __builtin_cpu_supports("avx512bitalg"),
                              __builtin_cpu_supports("avx512vpopcntdq"), __builtin_cpu_supports("gfni"));
  return vbmi ? Isa::vbmi : v4 ? Isa::v4 : v3 ? Isa::v3 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

Isa chosen() {
  const char* wanted = std::getenv("RVK_ISA");
  if (wanted == nullptr || *wanted == '\0') return of_cpu();
  for (const Isa level : kLevels)
    if (std::strcmp(wanted, isa_name(level)) == 0) return level < of_cpu() ? level : of_cpu();
  throw std::invalid_argument("RVK_ISA: expected baseline, v3, v4 or vbmi, got " + std::string(wanted));
}

}  // namespace

Isa isa() {
  static const Isa level = chosen();
  return level;
}

const char* isa_name(Isa level) {
  switch (level) {
    case Isa::v3:
      return "v3";
    case Isa::v4:
      return "v4";
    case Isa::vbmi:
      return "vbmi";
    default:
      return "baseline";
  }
}

}  // namespace rvk
