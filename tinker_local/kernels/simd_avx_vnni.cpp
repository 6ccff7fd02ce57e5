// AVX2 with AVX-VNNI, as Intel's processors for laptops have it since 2021.
#include "simd_path.hpp"
#include "cpu.hpp"

#if defined(TINKER_LOCAL_AVX_VNNI)
#include <immintrin.h>

namespace {

#include "avx2_path.hpp"

}  // namespace

const tinker::SimdPath* tinker::avx_vnni_path() {
  static constexpr SimdPath path = kernels("avx_vnni");
  return has_avx_vnni() ? &path : nullptr;
}
#else
const tinker::SimdPath* tinker::avx_vnni_path() { return nullptr; }
#endif
