// Sixteen lanes in two registers of AVX2, and how weights are read with them; included inside an unnamed namespace.

struct Lanes {
  __m256 lo, hi;
};
using Mask = Lanes;

inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Lanes a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline Lanes all(float a) { return {_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
inline Lanes operator+(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Lanes operator-(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Lanes operator*(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Lanes operator/(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Lanes max(Lanes a, Lanes b) {  // a > b ? a : b
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Mask at_least(Lanes a, Lanes b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ)};
}
inline Lanes add_where(Mask m, Lanes a, Lanes b) {
  return a + Lanes{_mm256_and_ps(b.lo, m.lo), _mm256_and_ps(b.hi, m.hi)};
}
inline unsigned bits(Mask m) {
  return static_cast<unsigned>(_mm256_movemask_ps(m.lo) | _mm256_movemask_ps(m.hi) << 8);
}

inline __m256 exponent(__m256 a) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
}
inline Lanes exponent(Lanes a) { return {exponent(a.lo), exponent(a.hi)}; }

#include "x86.hpp"

inline float sum(Lanes a) { return sum8(_mm256_add_ps(a.lo, a.hi)); }
inline float maximum(Lanes a) { return maximum8(_mm256_max_ps(a.lo, a.hi)); }

inline __m256 load_half8(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Lanes load_half(const uint16_t* p) { return {load_half8(p), load_half8(p + 8)}; }

// --- weights ---

inline Lanes from_bytes(Bytes a) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(a.v)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(a.v, a.v)))};
}
inline Lanes from_signed(Bytes a) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a.v)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(a.v, a.v)))};
}
inline __m256 load_bfloat8(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Lanes load_bfloat(const uint16_t* p) { return {load_bfloat8(p), load_bfloat8(p + 8)}; }
inline float from_half(uint16_t half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }
