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
#define RVK_HAS(set) &&__builtin_cpu_supports(set)
  const bool v3 = true RVK_V3_SETS(RVK_HAS);
  const bool v4 = v3 RVK_V4_SETS(RVK_HAS);
  const bool vbmi = v4 RVK_VBMI_SETS(RVK_HAS);
#undef RVK_HAS
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
