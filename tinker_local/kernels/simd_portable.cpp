// Plain C++: sixteen lanes in an array, for processors without a path of their own.
#include "simd_path.hpp"
#include "cpu.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct Lanes {
  float v[16];
};
struct Mask {
  bool v[16];
};

template <class F>
inline Lanes each(F f) {
  Lanes r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}

inline Lanes load(const float* p) {
  Lanes r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store(float* p, Lanes a) { std::memcpy(p, a.v, sizeof a.v); }
inline Lanes all(float a) {
  return each([=](int) { return a; });
}
inline Lanes operator+(Lanes a, Lanes b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Lanes operator-(Lanes a, Lanes b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Lanes operator*(Lanes a, Lanes b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Lanes operator/(Lanes a, Lanes b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline Lanes max(Lanes a, Lanes b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}

// a * b + c rounded once. Without the instruction: the product is exact in double, and rounding
// the sum to double and then to float differs only where the double lies halfway between floats.
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
#if defined(__FP_FAST_FMAF) || defined(_M_ARM64)
  return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
#else
  Lanes r;
  double total[16];
  int64_t halfway = 0;
  for (int i = 0; i < 16; ++i) {
    total[i] = static_cast<double>(a.v[i]) * b.v[i] + c.v[i];
    r.v[i] = static_cast<float>(total[i]);
  }
  for (int i = 0; i < 16; ++i) {
    int64_t word;
    std::memcpy(&word, &total[i], sizeof word);
    halfway |= (word & 0x1FFFFFFF) == 0x10000000;
  }
  if (halfway) {
    for (int i = 0; i < 16; ++i) r.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
  }
  return r;
#endif
}
inline Lanes exponent(Lanes a) {
  return each([&](int i) {
    uint32_t word;
    float result;
    std::memcpy(&word, &a.v[i], sizeof word);
    word <<= 23;
    std::memcpy(&result, &word, sizeof word);
    return result;
  });
}
inline Mask at_least(Lanes a, Lanes b) {
  Mask r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] >= b.v[i];
  return r;
}
inline Lanes add_where(Mask m, Lanes a, Lanes b) {
  return each([&](int i) { return a.v[i] + (m.v[i] ? b.v[i] : 0.0f); });
}
inline unsigned bits(Mask m) {
  unsigned r = 0;
  for (int i = 0; i < 16; ++i) r |= static_cast<unsigned>(m.v[i]) << i;
  return r;
}

// In halves: lane i with lane i + 8, then i + 4, i + 2, i + 1.
template <class F>
inline float halve(Lanes a, F f) {
  for (int half = 8; half; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = f(a.v[i], a.v[i + half]);
  }
  return a.v[0];
}
inline float sum(Lanes a) {
  return halve(a, [](float x, float y) { return x + y; });
}
inline float maximum(Lanes a) {
  return halve(a, [](float x, float y) { return x > y ? x : y; });
}

// float16 to float32: the exponent is moved by a product, which also brings subnormal numbers right.
inline float from_half(uint16_t half) {
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  float result;
  if ((half & 0x7c00u) == 0x7c00u) {  // infinite, or none
    const uint32_t word = magnitude | 0x7f800000u;
    std::memcpy(&result, &word, sizeof result);
  } else {
    std::memcpy(&result, &magnitude, sizeof result);
    result *= 0x1p112f;
  }
  return half & 0x8000u ? -result : result;
}
inline Lanes load_half(const uint16_t* p) {
  return each([=](int i) { return from_half(p[i]); });
}

// --- weights ---

// Sixteen bytes.
struct Bytes {
  uint8_t v[16];
};
template <class F>
inline Bytes each_byte(F f) {
  Bytes r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<uint8_t>(f(i));
  return r;
}
inline Bytes load_bytes(const void* p) {
  Bytes r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline Bytes bytes(int a) {
  return each_byte([=](int) { return a; });
}
inline Bytes operator&(Bytes a, Bytes b) {
  return each_byte([&](int i) { return a.v[i] & b.v[i]; });
}
inline Bytes operator|(Bytes a, Bytes b) {
  return each_byte([&](int i) { return a.v[i] | b.v[i]; });
}
template <int n>
inline Bytes shift_right(Bytes a) {
  return each_byte([&](int i) { return a.v[i] >> n; });
}
template <int n>
inline Bytes shift_left(Bytes a) {
  return each_byte([&](int i) { return a.v[i] << n; });
}
inline Bytes look_up(Bytes table, Bytes places) {
  return each_byte([&](int i) { return table.v[places.v[i]]; });
}
inline Bytes spread_bits(const uint8_t* p) {
  return each_byte([=](int i) { return p[i / 8] >> i % 8 & 1 ? 255 : 0; });
}
inline Bytes equal(Bytes a, Bytes b) {
  return each_byte([&](int i) { return a.v[i] == b.v[i] ? 255 : 0; });
}
inline Lanes from_bytes(Bytes a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline Lanes from_signed(Bytes a) {
  return each([&](int i) { return static_cast<float>(static_cast<int8_t>(a.v[i])); });
}
inline Lanes load_bfloat(const uint16_t* p) {
  return each([=](int i) {
    const uint32_t word = static_cast<uint32_t>(p[i]) << 16;
    float result;
    std::memcpy(&result, &word, sizeof result);
    return result;
  });
}
using Strip = Lanes;  // all sixteen
constexpr int kStrip = 16;
inline Strip strip(float a) { return all(a); }
inline Strip load_strip(const float* p) { return load(p); }
inline void store_strip(float* p, Strip a) { store(p, a); }

inline Lanes rounded(Lanes a) {
  return each([&](int i) { return std::nearbyint(a.v[i]); });
}
inline void store_shorts(int16_t* p, Lanes a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(a.v[i]);
}

inline void store_signed(int8_t* p, Lanes a, Lanes b) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]), p[16 + i] = static_cast<int8_t>(b.v[i]);
}

// Sixteen integers of sixteen bits.
struct Shorts {
  int16_t v[16];
};
inline Shorts widen(Bytes a) {
  Shorts r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i];
  return r;
}
inline Shorts widen_signed(Bytes a) {
  Shorts r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<int8_t>(a.v[i]);
  return r;
}
inline void store_pairs(float* p, Shorts a) { std::memcpy(p, a.v, sizeof a.v); }

inline Shorts shorts(int a) {
  Shorts r;
  for (int16_t& x : r.v) x = static_cast<int16_t>(a);
  return r;
}
inline Shorts operator+(Shorts a, Shorts b) {
  for (int i = 0; i < 16; ++i) a.v[i] = static_cast<int16_t>(a.v[i] + b.v[i]);
  return a;
}
inline Shorts operator*(Shorts a, Shorts b) {
  for (int i = 0; i < 16; ++i) a.v[i] = static_cast<int16_t>(a.v[i] * b.v[i]);
  return a;
}
inline Shorts twice(const int16_t* p) {
  Shorts r;
  std::memcpy(r.v, p, sizeof r.v / 2);
  std::memcpy(r.v + 8, p, sizeof r.v / 2);
  return r;
}

#include "octets.hpp"

inline void store_octets(float* p, Octets a) { std::memcpy(p, &a, sizeof a); }

struct Ints {
  int32_t v[kStrip];
};
inline Ints no_ints() { return {}; }
inline Ints load_pairs(const float* p) {
  Ints r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store_pairs(float* p, Ints a) { std::memcpy(p, a.v, sizeof a.v); }
// The first integer of each pair, twice; and the last one.
inline Ints first_twice(Ints a) {
  for (int32_t& pair : a.v) pair = static_cast<int32_t>((pair & 0xffffu) * 0x10001u);
  return a;
}
inline Ints last_twice(Ints a) {
  for (int32_t& pair : a.v) pair = static_cast<int32_t>((pair >> 16 & 0xffffu) * 0x10001u);
  return a;
}
inline Ints four_bytes(const void* p) {
  Ints r;
  for (int i = 0; i < kStrip; ++i) std::memcpy(r.v + i, p, sizeof r.v[i]);
  return r;
}
inline Ints pair(const int16_t* p) { return four_bytes(p); }
inline Ints add_products(Ints a, Ints b, Ints c) {
  int16_t x[2 * kStrip], y[2 * kStrip];
  std::memcpy(x, b.v, sizeof x);
  std::memcpy(y, c.v, sizeof y);
  for (int i = 0; i < kStrip; ++i) a.v[i] += x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
  return a;
}
// Sums may leave the integers on their way, and come back.
inline int32_t wrapping_sum(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
inline Ints operator+(Ints a, Ints b) {
  for (int i = 0; i < kStrip; ++i) a.v[i] = wrapping_sum(a.v[i], b.v[i]);
  return a;
}
inline Strip to_floats(Ints a, int less) {
  return each([&](int i) { return static_cast<float>(a.v[i] - less); });
}

// The sum of a column's products.
struct Products {
  int32_t v;
};
inline Products products(Shorts a, const int16_t* x) {
  Products sum{0};
  for (int i = 0; i < 16; ++i) sum.v += a.v[i] * x[i];
  return sum;
}
inline Products operator+(Products a, Products b) { return {wrapping_sum(a.v, b.v)}; }
inline int32_t dot(Bytes a, const int8_t* x) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += a.v[i] * x[i];
  return sum;
}
// Products of run i, times its scales.
inline Products products(Octets a, const int8_t* x, Shorts scales, int i) {
  return {dot(a.first, x) * scales.v[i] + dot(a.last, x + 16) * scales.v[8 + i]};
}

// Four numbers, one of each column.
struct Four {
  float v[4];
};
template <class F>
inline Four each_of_four(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}
inline Four four(float a) {
  return each_of_four([=](int) { return a; });
}
inline Four set_four(float a, float b, float c, float d) { return {{a, b, c, d}}; }
inline void store_four(float* p, Four a) { std::memcpy(p, a.v, sizeof a.v); }
inline Four operator*(Four a, Four b) {
  return each_of_four([&](int i) { return a.v[i] * b.v[i]; });
}
inline Four fma(Four a, Four b, Four c) {
  return each_of_four([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline Four join(const Products (&a)[4], int less) {
  return each_of_four([&](int i) { return static_cast<float>(a[i].v - less); });
}

// A sum of four products for each column.
struct Quads {
  int32_t v[kStrip];
};
constexpr int kMostOfQuads = 1 << 30;
inline Quads no_quads() { return {}; }
inline Ints four_of(const int8_t* p) { return four_bytes(p); }
inline Quads add_quads(Quads a, Ints b, Ints c) {
  uint8_t x[4 * kStrip];
  int8_t y[4 * kStrip];
  std::memcpy(x, b.v, sizeof x);
  std::memcpy(y, c.v, sizeof y);
  for (int i = 0; i < 4 * kStrip; ++i) a.v[i / 4] += x[i] * y[i];
  return a;
}
// Sums times scales times a step, of which each column has a pair.
inline Ints scaled(Quads a, Ints scales, int32_t step_pair) {
  Ints r;
  for (int i = 0; i < kStrip; ++i) r.v[i] = a.v[i] * (scales.v[i] >> 16) * (step_pair >> 16);
  return r;
}

constexpr int kTileRows = 0, kTileStrips = 0;  // of packed weights: none
constexpr int kMostFewRows = 0, kMostFewRowsOfBytes = 0;

constexpr int kFewRows = 0;  // rows up to which weights are unpacked in registers
#include "small_tiles.hpp"

inline void transpose16(const float* from, int stride, float* to, int to_stride) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) to[j * to_stride + i] = from[i * stride + j];
  }
}

#include "block_kernels.hpp"

}  // namespace

const tinker::SimdPath* tinker::portable_path() {
  static constexpr SimdPath path = kernels("portable");
  return &path;
}
