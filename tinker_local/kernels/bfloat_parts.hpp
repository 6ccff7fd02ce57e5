// Numbers as sums of two of bfloat16: the nearest, and what is nearest to the rest. The sum has sixteen bits, and so
// all those of float16. Over `Lanes`; included inside an unnamed namespace.

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

constexpr uint32_t kUpper = 0xffff0000, kInfinite = 0x7f800000;

// The nearest number of bfloat16, in the upper half, ties to even; towards zero where the nearest is infinite.
inline uint32_t nearest(uint32_t bits) {
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & kUpper;
  return (rounded & kInfinite) == kInfinite ? bits & kUpper : rounded;
}

// A number as the sum of two; of what is no number there is nothing left.
inline void split(float x, uint16_t& high, uint16_t& low) {
  const uint32_t bits = bits_of(x);
  const bool is_finite = (bits & kInfinite) != kInfinite;
  const uint32_t upper = is_finite ? nearest(bits) : x != x ? 0x7fc00000 : bits;
  high = static_cast<uint16_t>(upper >> 16);
  low = static_cast<uint16_t>(is_finite ? nearest(bits_of(x - float_of(upper))) >> 16 : 0);
}

// The same for 32 numbers, side by side.
inline void split_each(Lanes a, Lanes b, uint16_t* high, uint16_t* low) {
  float numbers[32];
  store(numbers, a);
  store(numbers + 16, b);
  for (int i = 0; i < 32; ++i) split(numbers[i], high[i], low[i]);
}

// Finite numbers, whose nearest ones of bfloat16 are finite too, are split faster. They are 32 in a row, or sixteen
// each of two rows, in pairs. `split_any` takes any numbers.
#if defined(__AVX512BF16__)
inline __m512i to_bfloat(Lanes a, Lanes b) { return (__m512i)_mm512_cvtne2ps_pbh(b.v, a.v); }

inline void split(Lanes a, Lanes b, uint16_t* high, uint16_t* low) {
  _mm512_storeu_si512(high, to_bfloat(a, b));
  _mm512_storeu_si512(low, to_bfloat(a - load_bfloat(high), b - load_bfloat(high + 16)));
}

inline void split_pairs(Lanes a, Lanes b, uint16_t* high, uint16_t* low) {
  alignas(64) static constexpr uint16_t places[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const auto pairs = [](Lanes x, Lanes y) {
    return _mm512_permutexvar_epi16(_mm512_load_si512(places), to_bfloat(x, y));
  };
  const __m512i nearest = pairs(a, b);
  const Lanes of_a{_mm512_castsi512_ps(_mm512_slli_epi32(nearest, 16))};
  const Lanes of_b{_mm512_castsi512_ps(_mm512_and_si512(nearest, _mm512_set1_epi32(static_cast<int>(kUpper))))};
  _mm512_storeu_si512(high, nearest);
  _mm512_storeu_si512(low, pairs(a - of_a, b - of_b));
}
inline void split_any(Lanes a, Lanes b, uint16_t* high, uint16_t* low) {
  const __m512 most = _mm512_set1_ps(0x1.fep127f);  // the largest number of bfloat16
  const auto are_finite = [most](Lanes x) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(x.v), most, _CMP_LE_OQ) == 0xffff;
  };
  are_finite(a) && are_finite(b) ? split(a, b, high, low) : split_each(a, b, high, low);
}
#else
inline void split(Lanes a, Lanes b, uint16_t* high, uint16_t* low) { split_each(a, b, high, low); }
inline void split_any(Lanes a, Lanes b, uint16_t* high, uint16_t* low) { split_each(a, b, high, low); }

inline void split_pairs(Lanes a, Lanes b, uint16_t* high, uint16_t* low) {
  float numbers[2][16];
  store(numbers[0], a);
  store(numbers[1], b);
  for (int i = 0; i < 32; ++i) split(numbers[i % 2][i / 2], high[i], low[i]);
}
#endif
