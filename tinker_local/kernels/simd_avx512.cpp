// AVX-512: sixteen lanes in one register. Processors without VNNI, the first ones, take the path of AVX2.
#include "simd_path.hpp"
#include "cpu.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>

namespace {

#include "avx512.hpp"

// Two sums' lanes, halved as `sum` does it: from sixteen to eight each, and so on. They lie side by side.
inline __m512 to_eight(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
inline __m512 to_four(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
inline __m512 to_two(__m512 a, __m512 b) {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
inline __m512 to_one(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

// The sums of sixteen Lanes: much faster than one by one.
inline Lanes sums_of(const Lanes (&a)[16]) {
  __m512 fours[4];
  for (int i = 0; i < 4; ++i) fours[i] = to_four(to_eight(a[i].v, a[4 + i].v), to_eight(a[8 + i].v, a[12 + i].v));
  return {to_one(to_two(fours[0], fours[1]), to_two(fours[2], fours[3]))};
}

// The sums of some lanes, each.
template <int n>
inline void sum_each(const float (&lanes)[n][16], float (&sums)[n]) {
  if constexpr (n == 1) {
    sums[0] = sum(load(lanes[0]));
  } else {
    for (int done = 0; done < n; done += 16) {
      Lanes sixteen[16];
      for (int i = 0; i < 16; ++i) sixteen[i] = done + i < n ? load(lanes[done + i]) : all(0.0f);
      float found[16];
      store(found, sums_of(sixteen));
      memcpy(sums + done, found, static_cast<size_t>(n - done < 16 ? n - done : 16) * sizeof(float));
    }
  }
}

using Strip = __m512;
constexpr int kStrip = 16;
inline Strip strip(float a) { return _mm512_set1_ps(a); }
inline Strip load_strip(const float* p) { return _mm512_loadu_ps(p); }
inline void store_strip(float* p, Strip a) { _mm512_storeu_ps(p, a); }
inline Strip fma(Strip a, Strip b, Strip c) { return _mm512_fmadd_ps(a, b, c); }

inline Lanes rounded(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline void store_shorts(int16_t* p, Lanes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a.v)));
}

inline void store_signed(int8_t* p, Lanes a, Lanes b) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(b.v)));
}

struct Ints {
  __m512i v;
};
inline Ints no_ints() { return {_mm512_setzero_si512()}; }
inline Ints load_pairs(const float* p) { return {_mm512_castps_si512(_mm512_loadu_ps(p))}; }
inline void store_pairs(float* p, Ints a) { _mm512_storeu_ps(p, _mm512_castsi512_ps(a.v)); }
// The first integer of each pair, twice; and the last one.
inline Ints first_twice(Ints a) { return {_mm512_mask_blend_epi16(0xaaaaaaaa, a.v, _mm512_slli_epi32(a.v, 16))}; }
inline Ints last_twice(Ints a) { return {_mm512_mask_blend_epi16(0x55555555, a.v, _mm512_srli_epi32(a.v, 16))}; }
inline Ints pair(const int16_t* p) { return {_mm512_set1_epi32(four_bytes(p))}; }
inline Ints add_products(Ints a, Ints b, Ints c) { return {_mm512_dpwssd_epi32(a.v, b.v, c.v)}; }
inline Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Strip to_floats(Ints a, int less) { return _mm512_cvtepi32_ps(_mm512_sub_epi32(a.v, _mm512_set1_epi32(less))); }

// A sum of four products for each column.
struct Quads {
  __m512i v;
};
constexpr int kMostOfQuads = 1 << 30;
inline Quads no_quads() { return {_mm512_setzero_si512()}; }
inline Ints four_of(const int8_t* p) { return {_mm512_set1_epi32(four_bytes(p))}; }
inline Quads add_quads(Quads a, Ints b, Ints c) { return {_mm512_dpbusd_epi32(a.v, b.v, c.v)}; }
// Sums times scales times a step, of which each column has a pair.
inline Ints scaled(Quads a, Ints scales, int32_t step_pair) {
  const __m512i pairs = _mm512_mullo_epi16(scales.v, _mm512_set1_epi32(step_pair));
  return {_mm512_mullo_epi32(a.v, _mm512_srai_epi32(pairs, 16))};
}

constexpr int kTileRows = 6, kTileStrips = 3;  // of packed weights; as many as registers hold
constexpr int kMostFewRows = 4, kMostFewRowsOfBytes = 4;  // as measured

constexpr int kFewRows = 32;  // rows up to which weights are unpacked in registers: faster, as measured
constexpr int kDotRows = 6;   // of them together
constexpr int columns_beside(int) { return 4; }

constexpr int kPanelTileRows = 4, kPanelTileColumns = 6;  // of plain weights
constexpr int kBlockRows = 64, kBlockColumns = 12;        // that fit the nearest caches

constexpr int kWide = 4;  // Lanes that a product keeps of each of four rows

#include "avx512_transpose.hpp"

#include "block_kernels.hpp"

}  // namespace

const tinker::SimdPath* tinker::avx512_path() {
  static constexpr SimdPath path = kernels("avx512");
  return has_avx512() ? &path : nullptr;
}
#else
const tinker::SimdPath* tinker::avx512_path() { return nullptr; }
#endif
