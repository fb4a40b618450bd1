// RVK_CLONES before a function compiles it for several instruction sets; the loader picks the widest the CPU has.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(RVK_NO_CLONES)
#if __GNUC__ >= 12
#define RVK_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else  // knows no levels here
#define RVK_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define RVK_CLONES
#endif
