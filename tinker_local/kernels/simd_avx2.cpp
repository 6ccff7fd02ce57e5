// AVX2 with FMA: sixteen lanes in two registers.
#include "simd_path.hpp"
#include "cpu.hpp"

#if defined(__AVX2__)  // and FMA, which every processor with AVX2 has
#include <immintrin.h>

namespace {

#include "avx2_path.hpp"

}  // namespace

const tinker::SimdPath* tinker::avx2_path() {
  static constexpr SimdPath path = kernels("avx2");
  return has_avx2() ? &path : nullptr;
}
#else
const tinker::SimdPath* tinker::avx2_path() { return nullptr; }
#endif
