// AVX-512: sixteen lanes in one register. Processors without VNNI, the first ones, take the path of AVX2.
#include "simd_path.hpp"
#include "cpu.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>

namespace {

#include "avx512.hpp"

#include "block_kernels.hpp"

}  // namespace

const tinker::SimdPath* tinker::avx512_path() {
  static constexpr SimdPath path = kernels("avx512");
  return has_avx512() ? &path : nullptr;
}
#else
const tinker::SimdPath* tinker::avx512_path() { return nullptr; }
#endif
