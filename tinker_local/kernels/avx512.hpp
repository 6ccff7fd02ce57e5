// Sixteen lanes in one register of AVX-512, and how weights are read with them; included inside an unnamed namespace.

struct Lanes {
  __m512 v;
};
using Mask = __mmask16;

inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
inline Lanes all(float a) { return {_mm512_set1_ps(a)}; }
inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }  // a > b ? a : b
inline Mask at_least(Lanes a, Lanes b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
inline Lanes add_where(Mask m, Lanes a, Lanes b) {
  return {_mm512_mask_add_ps(a.v, m, a.v, b.v)};
}
inline unsigned bits(Mask m) { return m; }

inline Lanes exponent(Lanes a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
}

inline __m256 upper(__m512 a) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
}

#include "x86.hpp"

inline float sum(Lanes a) { return sum8(_mm256_add_ps(_mm512_castps512_ps256(a.v), upper(a.v))); }
inline float maximum(Lanes a) {
  return maximum8(_mm256_max_ps(_mm512_castps512_ps256(a.v), upper(a.v)));
}

inline Lanes load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

// --- weights ---

inline Lanes from_bytes(Bytes a) { return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(a.v))}; }
inline Lanes from_signed(Bytes a) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a.v))}; }
// A number of sixteen bits goes to the upper half of a lane in one step.
inline Lanes load_bfloat(const uint16_t* p) {
  static constexpr uint16_t places[32] = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                                          0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
  const __m512i packed = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, _mm512_loadu_si512(places), packed))};
}
inline float from_half(uint16_t half) {
  return _mm512_cvtss_f32(_mm512_cvtph_ps(_mm256_castsi128_si256(_mm_cvtsi32_si128(half))));
}
