// The path of AVX2, and that of AVX-VNNI, which multiplies and adds small integers in one instruction. Included inside
// an unnamed namespace by each.

#include "avx2.hpp"

using Strip = __m256;
constexpr int kStrip = 8;
inline Strip strip(float a) { return _mm256_set1_ps(a); }
inline Strip load_strip(const float* p) { return _mm256_loadu_ps(p); }
inline void store_strip(float* p, Strip a) { _mm256_storeu_ps(p, a); }
inline Strip fma(Strip a, Strip b, Strip c) { return _mm256_fmadd_ps(a, b, c); }

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
inline Lanes rounded(Lanes a) { return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)}; }
inline __m256i shorts_of(Lanes a) {
  const __m256i mixed = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
  return _mm256_permute4x64_epi64(mixed, 0xd8);
}
inline void store_shorts(int16_t* p, Lanes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), shorts_of(a));
}
inline void store_signed(int8_t* p, Lanes a, Lanes b) {
  const __m256i mixed = _mm256_packs_epi16(shorts_of(a), shorts_of(b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(mixed, 0xd8));
}

struct Ints {
  __m256i v;
};
inline Ints no_ints() { return {_mm256_setzero_si256()}; }
inline Ints load_pairs(const float* p) { return {_mm256_castps_si256(_mm256_loadu_ps(p))}; }
inline void store_pairs(float* p, Ints a) { _mm256_storeu_ps(p, _mm256_castsi256_ps(a.v)); }
// The first integer of each pair, twice; and the last one.
inline Ints first_twice(Ints a) { return {_mm256_blend_epi16(a.v, _mm256_slli_epi32(a.v, 16), 0xaa)}; }
inline Ints last_twice(Ints a) { return {_mm256_blend_epi16(a.v, _mm256_srli_epi32(a.v, 16), 0x55)}; }
inline Ints pair(const int16_t* p) { return {_mm256_set1_epi32(four_bytes(p))}; }
inline Ints operator+(Ints a, Ints b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Strip to_floats(Ints a, int less) { return _mm256_cvtepi32_ps(_mm256_sub_epi32(a.v, _mm256_set1_epi32(less))); }

#if defined(TINKER_LOCAL_AVX_VNNI)
inline Ints add_products(Ints a, Ints b, Ints c) { return {_mm256_dpwssd_avx_epi32(a.v, b.v, c.v)}; }

// A sum of four products for each column.
struct Quads {
  __m256i v;
};
constexpr int kMostOfQuads = 1 << 30;
inline Quads add_quads(Quads a, Ints b, Ints c) { return {_mm256_dpbusd_avx_epi32(a.v, b.v, c.v)}; }
// Sums times scales times a step, of which each column has a pair.
inline Ints scaled(Quads a, Ints scales, int32_t step_pair) {
  const __m256i pairs = _mm256_mullo_epi16(scales.v, _mm256_set1_epi32(step_pair));
  return {_mm256_mullo_epi32(a.v, _mm256_srai_epi32(pairs, 16))};
}

constexpr int kTileRows = 4, kTileStrips = 3;  // of packed weights; as many as registers hold
constexpr int kMostFewRows = 4, kMostFewRowsOfBytes = 4;
#else
// A sum as it is now: GCC adds integers in another order otherwise, and keeps all that it adds in memory till then.
inline __m256i now(__m256i sum) {
#if defined(__GNUC__)
  __asm__("" : "+x"(sum));
#endif
  return sum;
}

inline Ints add_products(Ints a, Ints b, Ints c) {
  return {now(_mm256_add_epi32(a.v, _mm256_madd_epi16(b.v, c.v)))};
}

// Two sums of two products for each column.
struct Quads {
  __m256i v;
};
constexpr int kMostOfQuads = 32767;
inline Quads add_quads(Quads a, Ints b, Ints c) {
  return {now(_mm256_add_epi16(a.v, _mm256_maddubs_epi16(b.v, c.v)))};
}
// Sums times scales times a step, of which each column has a pair.
inline Ints scaled(Quads a, Ints scales, int32_t step_pair) {
  return {_mm256_madd_epi16(a.v, _mm256_mullo_epi16(scales.v, _mm256_set1_epi32(step_pair)))};
}

constexpr int kTileRows = 3, kTileStrips = 3;  // of packed weights; as many as registers hold
constexpr int kMostFewRows = 4, kMostFewRowsOfBytes = 8;
#endif

inline Quads no_quads() { return {_mm256_setzero_si256()}; }
inline Ints four_of(const int8_t* p) { return {_mm256_set1_epi32(four_bytes(p))}; }

constexpr int kFewRows = 4;  // rows up to which weights are unpacked in registers: faster, as measured
#include "small_tiles.hpp"

// Rows i and i + 4, in halves of a register; then pairs of rows, and pairs of those.
inline void transpose8(const float* from, int stride, float* to, int to_stride) {
  for (int j = 0; j < 8; j += 4) {
    __m256 a[4], b[4];
    for (int i = 0; i < 4; ++i) {
      const float* low = from + i * stride + j;
      a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(low + 4 * stride), 1);
    }
    for (int i = 0; i < 4; i += 2) {
      b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
      b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      _mm256_storeu_ps(to + (j + 2 * i) * to_stride, _mm256_shuffle_ps(b[i], b[2 + i], 0x44));
      _mm256_storeu_ps(to + (j + 2 * i + 1) * to_stride, _mm256_shuffle_ps(b[i], b[2 + i], 0xee));
    }
  }
}
inline void transpose16(const float* from, int stride, float* to, int to_stride) {
  for (int i = 0; i < 16; i += 8) {
    for (int j = 0; j < 16; j += 8) {
      transpose8(from + i * stride + j, stride, to + j * to_stride + i, to_stride);
    }
  }
}

#include "block_kernels.hpp"
