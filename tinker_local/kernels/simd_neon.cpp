// NEON, which every arm64 processor has: sixteen lanes in four registers.
#include "simd_path.hpp"
#include "cpu.hpp"

#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>

namespace {

struct Lanes {
  float32x4_t v[4];
};
struct Mask {
  uint32x4_t v[4];
};

template <class F>
inline Lanes each(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}

inline Lanes load(const float* p) {
  return each([=](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, Lanes a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline Lanes all(float a) {
  return each([=](int) { return vdupq_n_f32(a); });
}
inline Lanes operator+(Lanes a, Lanes b) {
  return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline Lanes operator-(Lanes a, Lanes b) {
  return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline Lanes operator*(Lanes a, Lanes b) {
  return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline Lanes operator/(Lanes a, Lanes b) {
  return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// a > b ? a : b, as x86 has it: fmax would treat NaN differently.
inline float32x4_t max4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline Lanes max(Lanes a, Lanes b) {
  return each([&](int i) { return max4(a.v[i], b.v[i]); });
}
inline Lanes exponent(Lanes a) {
  return each([&](int i) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a.v[i]), 23));
  });
}
inline Mask at_least(Lanes a, Lanes b) {
  return {{vcgeq_f32(a.v[0], b.v[0]), vcgeq_f32(a.v[1], b.v[1]), vcgeq_f32(a.v[2], b.v[2]),
           vcgeq_f32(a.v[3], b.v[3])}};
}
inline Lanes add_where(Mask m, Lanes a, Lanes b) {
  return each([&](int i) {
    const uint32x4_t kept = vandq_u32(vreinterpretq_u32_f32(b.v[i]), m.v[i]);
    return vaddq_f32(a.v[i], vreinterpretq_f32_u32(kept));
  });
}
inline unsigned bits(Mask m) {
  const uint16x8_t lo = vcombine_u16(vmovn_u32(m.v[0]), vmovn_u32(m.v[1]));
  const uint16x8_t hi = vcombine_u16(vmovn_u32(m.v[2]), vmovn_u32(m.v[3]));
  const uint8x16_t one_byte_each = vcombine_u8(vmovn_u16(lo), vmovn_u16(hi));
  const uint8x8_t place = vcreate_u8(0x8040201008040201);  // 1, 2, 4 .. 128
  const uint8x16_t set = vandq_u8(one_byte_each, vcombine_u8(place, place));
  return static_cast<unsigned>(vaddv_u8(vget_low_u8(set)) | vaddv_u8(vget_high_u8(set)) << 8);
}

// In halves: lane i with lane i + 8, then i + 4, i + 2, i + 1.
inline float sum(Lanes a) {
  const float32x4_t b =
      vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
  return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}
inline float maximum(Lanes a) {
  const float32x4_t b = max4(max4(a.v[0], a.v[2]), max4(a.v[1], a.v[3]));
  float lane[4];
  vst1q_f32(lane, b);
  float result = lane[0];
  for (int i = 1; i < 4; ++i) result = lane[i] > result ? lane[i] : result;
  return result;
}

inline Lanes load_half(const uint16_t* p) {
  return each([=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}

// --- weights ---

// Sixteen bytes.
struct Bytes {
  uint8x16_t v;
};
inline Bytes load_bytes(const void* p) { return {vld1q_u8(static_cast<const uint8_t*>(p))}; }
inline Bytes bytes(int a) { return {vdupq_n_u8(static_cast<uint8_t>(a))}; }
inline Bytes operator&(Bytes a, Bytes b) { return {vandq_u8(a.v, b.v)}; }
inline Bytes operator|(Bytes a, Bytes b) { return {vorrq_u8(a.v, b.v)}; }
template <int n>
inline Bytes shift_right(Bytes a) {
  return {vshrq_n_u8(a.v, n)};
}
template <int n>
inline Bytes shift_left(Bytes a) {
  return {vshlq_n_u8(a.v, n)};
}
inline Bytes look_up(Bytes table, Bytes places) { return {vqtbl1q_u8(table.v, places.v)}; }
inline Bytes spread_bits(const uint8_t* p) {
  const uint8x8_t place = vcreate_u8(0x8040201008040201);
  return {vtstq_u8(vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1])), vcombine_u8(place, place))};
}
inline Bytes equal(Bytes a, Bytes b) { return {vceqq_u8(a.v, b.v)}; }
inline Lanes from_bytes(Bytes a) {
  const uint16x8_t lo = vmovl_u8(vget_low_u8(a.v)), hi = vmovl_u8(vget_high_u8(a.v));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(lo))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(hi)))}};
}
inline Lanes from_signed(Bytes a) {
  const int8x16_t b = vreinterpretq_s8_u8(a.v);
  const int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_s8(vget_high_s8(b));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}
inline Lanes load_bfloat(const uint16_t* p) {
  return each([=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline float from_half(uint16_t half) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}
using Strip = float32x4_t;
constexpr int kStrip = 4;
inline Strip strip(float a) { return vdupq_n_f32(a); }
inline Strip load_strip(const float* p) { return vld1q_f32(p); }
inline void store_strip(float* p, Strip a) { vst1q_f32(p, a); }
inline Strip fma(Strip a, Strip b, Strip c) { return vfmaq_f32(c, a, b); }

inline Lanes rounded(Lanes a) {
  return each([&](int i) { return vrndnq_f32(a.v[i]); });
}
inline void store_shorts(int16_t* p, Lanes a) {
  for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vqmovn_s32(vcvtq_s32_f32(a.v[i])));
}

inline void store_signed(int8_t* p, Lanes a, Lanes b) {
  int16_t shorts[32];
  store_shorts(shorts, a);
  store_shorts(shorts + 16, b);
  for (int i = 0; i < 32; i += 8) vst1_s8(p + i, vmovn_s16(vld1q_s16(shorts + i)));
}

// Sixteen integers of sixteen bits.
struct Shorts {
  int16x8_t lo, hi;
};
inline Shorts widen(Bytes a) {
  return {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(a.v))), vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(a.v)))};
}
inline Shorts widen_signed(Bytes a) {
  const int8x16_t b = vreinterpretq_s8_u8(a.v);
  return {vmovl_s8(vget_low_s8(b)), vmovl_s8(vget_high_s8(b))};
}
inline void store_pairs(float* p, Shorts a) {
  vst1q_f32(p, vreinterpretq_f32_s16(a.lo));
  vst1q_f32(p + 4, vreinterpretq_f32_s16(a.hi));
}

inline Shorts shorts(int a) {
  const int16x8_t all = vdupq_n_s16(static_cast<int16_t>(a));
  return {all, all};
}
inline Shorts operator+(Shorts a, Shorts b) { return {vaddq_s16(a.lo, b.lo), vaddq_s16(a.hi, b.hi)}; }
inline Shorts operator*(Shorts a, Shorts b) { return {vmulq_s16(a.lo, b.lo), vmulq_s16(a.hi, b.hi)}; }
inline Shorts twice(const int16_t* p) { return {vld1q_s16(p), vld1q_s16(p)}; }

#include "octets.hpp"

inline void store_octets(float* p, Octets a) {
  vst1q_f32(p, vreinterpretq_f32_u8(a.first.v));
  vst1q_f32(p + 4, vreinterpretq_f32_u8(a.last.v));
}

// Sums of a column's products, in four parts.
struct Products {
  int32x4_t v;
};
inline Products products(Shorts a, const int16_t* x) {
  const int16x8_t lo = vld1q_s16(x), hi = vld1q_s16(x + 8);
  int32x4_t sum = vmull_s16(vget_low_s16(a.lo), vget_low_s16(lo));
  sum = vmlal_s16(sum, vget_high_s16(a.lo), vget_high_s16(lo));
  sum = vmlal_s16(sum, vget_low_s16(a.hi), vget_low_s16(hi));
  return {vmlal_s16(sum, vget_high_s16(a.hi), vget_high_s16(hi))};
}
inline Products operator+(Products a, Products b) { return {vaddq_s32(a.v, b.v)}; }

// Sums of two neighbours' products, each below 2^15.
inline int16x8_t pairs_of(int8x16_t a, int8x16_t b) {
  return vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_s8(vget_high_s8(a), vget_high_s8(b)));
}
// The same of sixteen bits.
inline int32x4_t pairs_of(int16x8_t a, int16x8_t b) {
  return vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_s16(vget_high_s16(a), vget_high_s16(b)));
}
// Products of sixteen, times number i of the scales.
inline int32x4_t scaled_products(Bytes a, const int8_t* x, int16x8_t scales, int i) {
  const uint16_t places = static_cast<uint16_t>((2 * i + 1) << 8 | 2 * i);
  const uint8x16_t scale = vqtbl1q_u8(vreinterpretq_u8_s16(scales), vreinterpretq_u8_u16(vdupq_n_u16(places)));
  return pairs_of(pairs_of(vreinterpretq_s8_u8(a.v), vld1q_s8(x)), vreinterpretq_s16_u8(scale));
}
// Products of run i, times its scales.
inline Products products(Octets a, const int8_t* x, Shorts scales, int i) {
  return {vaddq_s32(scaled_products(a.first, x, scales.lo, i), scaled_products(a.last, x + 16, scales.hi, i))};
}

// Four numbers, one of each column.
struct Four {
  float32x4_t v;
};
inline Four four(float a) { return {vdupq_n_f32(a)}; }
inline Four set_four(float a, float b, float c, float d) {
  const float all_four[4] = {a, b, c, d};
  return {vld1q_f32(all_four)};
}
inline void store_four(float* p, Four a) { vst1q_f32(p, a.v); }
inline Four operator*(Four a, Four b) { return {vmulq_f32(a.v, b.v)}; }
inline Four fma(Four a, Four b, Four c) { return {vfmaq_f32(c.v, a.v, b.v)}; }

// The parts of each column added, less a number.
inline Four join(const Products (&a)[4], int less) {
  const int32x4_t whole = vpaddq_s32(vpaddq_s32(a[0].v, a[1].v), vpaddq_s32(a[2].v, a[3].v));
  return {vcvtq_f32_s32(vsubq_s32(whole, vdupq_n_s32(less)))};
}

struct Ints {
  int32x4_t v;
};
inline Ints no_ints() { return {vdupq_n_s32(0)}; }
inline Ints load_pairs(const float* p) { return {vreinterpretq_s32_f32(vld1q_f32(p))}; }
inline void store_pairs(float* p, Ints a) { vst1q_f32(p, vreinterpretq_f32_s32(a.v)); }
// The first integer of each pair, twice; and the last one.
inline Ints first_twice(Ints a) { return {vsliq_n_s32(a.v, a.v, 16)}; }
inline Ints last_twice(Ints a) { return {vsriq_n_s32(a.v, a.v, 16)}; }
inline Ints four_bytes(const void* p) {
  int32_t all_four;
  memcpy(&all_four, p, sizeof all_four);
  return {vdupq_n_s32(all_four)};
}
inline Ints pair(const int16_t* p) { return four_bytes(p); }
inline Ints add_products(Ints a, Ints b, Ints c) {
  return {vaddq_s32(a.v, pairs_of(vreinterpretq_s16_s32(b.v), vreinterpretq_s16_s32(c.v)))};
}
inline Ints operator+(Ints a, Ints b) { return {vaddq_s32(a.v, b.v)}; }
inline Strip to_floats(Ints a, int less) { return vcvtq_f32_s32(vsubq_s32(a.v, vdupq_n_s32(less))); }

// Two sums of two products for each column.
struct Quads {
  int16x8_t v;
};
constexpr int kMostOfQuads = 32767;
inline Quads no_quads() { return {vdupq_n_s16(0)}; }
inline Ints four_of(const int8_t* p) { return four_bytes(p); }
inline Quads add_quads(Quads a, Ints b, Ints c) {
  return {vaddq_s16(a.v, pairs_of(vreinterpretq_s8_s32(b.v), vreinterpretq_s8_s32(c.v)))};
}
// Sums times scales times a step, of which each column has a pair.
inline Ints scaled(Quads a, Ints scales, int32_t step_pair) {
  const int16x8_t steps = vreinterpretq_s16_s32(vdupq_n_s32(step_pair));
  return {pairs_of(a.v, vmulq_s16(vreinterpretq_s16_s32(scales.v), steps))};
}

constexpr int kTileRows = 4, kTileStrips = 4;  // of packed weights; as many as registers hold
constexpr int kMostFewRows = 8, kMostFewRowsOfBytes = 8;  // as measured

constexpr int kFewRows = 4;  // rows up to which weights are unpacked in registers: faster, as measured
#include "small_tiles.hpp"

inline void transpose4(const float* from, int stride, float* to, int to_stride) {
  const float32x4x2_t a = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + stride));
  const float32x4x2_t b = vtrnq_f32(vld1q_f32(from + 2 * stride), vld1q_f32(from + 3 * stride));
  for (int j = 0; j < 2; ++j) {
    vst1q_f32(to + j * to_stride, vcombine_f32(vget_low_f32(a.val[j]), vget_low_f32(b.val[j])));
    vst1q_f32(to + (2 + j) * to_stride,
              vcombine_f32(vget_high_f32(a.val[j]), vget_high_f32(b.val[j])));
  }
}
inline void transpose16(const float* from, int stride, float* to, int to_stride) {
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 16; j += 4) {
      transpose4(from + i * stride + j, stride, to + j * to_stride + i, to_stride);
    }
  }
}

#include "block_kernels.hpp"

}  // namespace

const tinker::SimdPath* tinker::neon_path() {
  static constexpr SimdPath path = kernels("neon");
  return &path;
}
#else
const tinker::SimdPath* tinker::neon_path() { return nullptr; }
#endif
