// What compilers name differently: bit scans, pauses, and what this processor can do. Static, so that no
// two instruction sets share a symbol.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace tinker {

#if defined(_MSC_VER) && !defined(__clang__)

static inline int lowest_bit(unsigned a) {
  unsigned long i;
  _BitScanForward(&i, a);
  return static_cast<int>(i);
}

#if defined(_M_X64)
// Leaf 1 says FMA (bit 12) and OSXSAVE (27), leaf 7 AVX2 (5), AVX-512F (16), AVX-512BW (30) and in its third
// register AVX-512 VNNI (11); the system must also keep the registers, which XCR0 says.
static inline bool has(int bit_of_leaf_7, unsigned long long registers, int of = 1) {
  int leaf1[4], leaf7[4];
  __cpuidex(leaf1, 1, 0);
  __cpuidex(leaf7, 7, 0);
  const bool usable = (leaf1[2] >> 12 & 1) && (leaf1[2] >> 27 & 1);
  return usable && (_xgetbv(0) & registers) == registers && (leaf7[of] >> bit_of_leaf_7 & 1);
}
static inline bool has_avx2() { return has(5, 0x06); }
static inline bool has_avx512() { return has(16, 0xE6) && has(30, 0xE6) && has(11, 0xE6, 2); }
static inline bool has_avx_vnni() {  // bit 4 of the second part of leaf 7
  int more_of_leaf7[4];
  __cpuidex(more_of_leaf7, 7, 1);
  return has_avx2() && (more_of_leaf7[0] >> 4 & 1);
}
#endif

#else

static inline int lowest_bit(unsigned a) { return __builtin_ctz(a); }

#if defined(__x86_64__)
static inline bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static inline bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vnni");
}
static inline bool has_avx_vnni() {  // bit 4 of the second part of leaf 7; not all compilers have a name for it
  unsigned a, b, c, d;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

#endif

// Said in a loop that waits for another thread for a very short time.
static inline void pause() {
#if defined(_M_X64) || defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace tinker
