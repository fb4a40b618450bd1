// Instruction sets, chosen at run time: one build serves every x86-64 machine, other architectures get the plain loops.
//
// dispatch([=]() RVK_INLINE { loop }) compiles the loop for each level and runs it at the widest one the CPU has. What
// the loop calls must be RVK_INLINE, too, or it stays at the baseline; variables are captured by value, since a loop
// that writes bytes would otherwise have to reload them. Functions that use intrinsics carry RVK_V3, RVK_V4 or RVK_VBMI
// and are called only when isa() is at least that level.
#pragma once

#include <utility>

#define RVK_INLINE __attribute__((always_inline))

#if defined(__x86_64__)
// What each level adds: one list for the compiler and for isa(), so that no code is made for what the CPU is not asked.
#define RVK_V3_SETS(USE) USE("avx2") USE("bmi") USE("bmi2") USE("fma") USE("popcnt")
#define RVK_V4_SETS(USE) USE("avx512f") USE("avx512bw") USE("avx512cd") USE("avx512dq") USE("avx512vl")
#define RVK_VBMI_SETS(USE) \
  USE("avx512vbmi") USE("avx512vbmi2") USE("avx512vnni") USE("avx512bitalg") USE("avx512vpopcntdq") USE("gfni")
#define RVK_COMMA(set) "," set
#define RVK_V3_TARGET "sse2" RVK_V3_SETS(RVK_COMMA)
#define RVK_V4_TARGET RVK_V3_TARGET RVK_V4_SETS(RVK_COMMA)
#define RVK_V3 __attribute__((target(RVK_V3_TARGET)))
#define RVK_V4 __attribute__((target(RVK_V4_TARGET)))
#define RVK_VBMI __attribute__((target(RVK_V4_TARGET RVK_VBMI_SETS(RVK_COMMA))))
#else
#define RVK_V3
#define RVK_V4
#define RVK_VBMI
#endif

namespace rvk {

// v3 and v4: of the levels of the x86-64 psABI, what loops gain from. vbmi: v4 and the byte instructions of Zen 4.
enum class Isa { baseline, v3, v4, vbmi };

// The widest level of this CPU, or the one that the environment variable RVK_ISA names if that is lower. Read once.
Isa isa();
const char* isa_name(Isa level);

namespace isa_detail {

template <typename F>
RVK_V3 auto on_v3(F f) {
  return f();
}

template <typename F>
RVK_V4 auto on_v4(F f) {
  return f();
}

}  // namespace isa_detail

template <typename F>
auto dispatch(F f) {
  switch (isa()) {
    case Isa::vbmi:
    case Isa::v4:
      return isa_detail::on_v4(std::move(f));
    case Isa::v3:
      return isa_detail::on_v3(std::move(f));
    default:
      return f();
  }
}

}  // namespace rvk
