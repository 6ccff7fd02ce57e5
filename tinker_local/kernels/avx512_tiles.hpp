// What is done with AVX-512 to what goes into tiles and comes out of them; included inside an unnamed namespace.

#include "avx512_transpose.hpp"

// Integers of 32 weights as numbers of bfloat16. Of sixteen bytes the lower four bits come first, then the upper ones.
// A number's place in a table has five bits; what is above is not looked at.

inline void look_up(__m512i places, const BfloatTable& table, uint16_t* to) {
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(places, _mm512_loadu_si512(table.of)));
}

inline __m512i spread_nibbles(const uint8_t* packed) {
  alignas(64) static constexpr uint8_t bytes[64] = {
      0, 255, 1, 255, 2, 255, 3, 255, 4, 255, 5, 255, 6, 255, 7, 255, 8, 255, 9, 255, 10, 255,
      11, 255, 12, 255, 13, 255, 14, 255, 15, 255, 0, 255, 1, 255, 2, 255, 3, 255, 4, 255, 5, 255,
      6, 255, 7, 255, 8, 255, 9, 255, 10, 255, 11, 255, 12, 255, 13, 255, 14, 255, 15, 255};
  const __m512i twice = _mm512_broadcast_i32x4(load_bytes(packed).v);
  const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  return _mm512_srlv_epi16(_mm512_shuffle_epi8(twice, _mm512_load_si512(bytes)), shifts);
}

inline void from_nibbles(const uint8_t* packed, const BfloatTable& table, uint16_t* to) {
  look_up(spread_nibbles(packed), table, to);
}

// With a fifth bit of each number, in four bytes.
inline void from_nibbles(const uint8_t* packed, const uint8_t* fifth, const BfloatTable& table, uint16_t* to) {
  uint32_t bits;
  memcpy(&bits, fifth, sizeof bits);
  const __m512i nibbles = _mm512_and_si512(spread_nibbles(packed), _mm512_set1_epi16(15));
  look_up(_mm512_mask_add_epi16(nibbles, bits, nibbles, _mm512_set1_epi16(16)), table, to);
}

// 32 integers of sixteen bits that are numbers of bfloat16: the upper halves of floats.
inline void write_integers(__m512i a, uint16_t* to) {
  alignas(64) static constexpr uint16_t upper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                     33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const auto floats = [](__m256i b) { return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(b))); };
  const __m512i first = floats(_mm512_castsi512_si256(a)), last = floats(_mm512_extracti64x4_epi64(a, 1));
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, _mm512_load_si512(upper), last));
}

// Sixteen integers, twice.
inline void write_twice(Shorts a, uint16_t* to) { write_integers(_mm512_broadcast_i64x4(a.v), to); }

// Sixteen integers: multiples of 256, then what is left.
inline void write_parts(const int16_t* from, uint16_t* to) {
  const __m512i upper_and_lower = _mm512_inserti64x4(_mm512_set1_epi16(~255), _mm256_set1_epi16(255), 1);
  write_integers(_mm512_and_si512(_mm512_broadcast_i64x4(load_256(from)), upper_and_lower), to);
}

inline void from_signed(const uint8_t* p, uint16_t* to) { write_integers(_mm512_cvtepi8_epi16(load_256(p)), to); }

// 64 integers without a sign, less a number, times the scale of each sixteen. Runs `step` * 2 and the next have scales
// for their first sixteen in the first half of `scales`, and those for their last sixteen in the other half.
struct Scaled {
  __m512i even, odd;  // integers of sixteen bits: of the even places, and of the odd ones

  Scaled(Octets run, Octets next, int less, Shorts scales, int step) {
    alignas(64) static constexpr uint16_t places[32] = {0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8,
                                                        1, 1, 1, 1, 1, 1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9};
    const __m512i place = _mm512_add_epi16(_mm512_load_si512(places), _mm512_set1_epi16(static_cast<short>(2 * step)));
    const __m512i scale = _mm512_permutexvar_epi16(place, _mm512_castsi256_si512(scales.v));
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(run.v), next.v, 1);
    const __m512i zero = _mm512_set1_epi16(static_cast<short>(less));
    even = _mm512_mullo_epi16(_mm512_sub_epi16(_mm512_and_si512(both, _mm512_set1_epi16(255)), zero), scale);
    odd = _mm512_mullo_epi16(_mm512_sub_epi16(_mm512_srli_epi16(both, 8), zero), scale);
  }
};

// The lower bytes of even places, and the upper ones of odd ones.
inline __m512i join_bytes(__m512i even, __m512i odd) { return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, even, odd); }

// In two parts: multiples of 128, and what is left.
inline void scale_octets(Octets run, Octets next, int less, Shorts scales, int step, int8_t* upper, int8_t* lower) {
  const Scaled of(run, next, less, scales, step);
  const __m512i left = join_bytes(of.even, _mm512_slli_epi16(of.odd, 8));
  _mm512_storeu_si512(upper, join_bytes(_mm512_srai_epi16(of.even, 7), _mm512_slli_epi16(of.odd, 1)));
  _mm512_storeu_si512(lower, _mm512_and_si512(left, _mm512_set1_epi8(127)));
}

// Where all have eight bits.
inline void scale_octets(Octets run, Octets next, int less, Shorts scales, int step, int8_t* to) {
  const Scaled of(run, next, less, scales, step);
  _mm512_storeu_si512(to, join_bytes(of.even, _mm512_slli_epi16(of.odd, 8)));
}

// Calls f(c) for each of sixteen columns. Numbers are known when the code is compiled, so that sums stay in registers.
template <class F, int... c>
[[gnu::always_inline]] inline void each_column(F f, std::integer_sequence<int, c...>) {
  (f(std::integral_constant<int, c>()), ...);
}
template <class F>
[[gnu::always_inline]] inline void each_column(F f) {
  each_column(f, std::make_integer_sequence<int, 16>());
}

// Sums of products of sixteen columns with the sixteen rows of a block.
struct Sums {
  __m512 of[16];

  explicit Sums(const float* from) {
    each_column([&](auto c) { of[c] = _mm512_load_ps(from + 16 * c); });
  }
  void store(float* to) const {
    each_column([&](auto c) { _mm512_store_ps(to + 16 * c, of[c]); });
  }

  // Adds products, a row of them for each column, times the column's scale and the row's.
  void add(const float* products, const float* of_columns, const float* of_rows) {
    const __m512 rows = _mm512_load_ps(of_rows);
    each_column([&](auto c) {
      const __m512 scale = _mm512_mul_ps(rows, _mm512_set1_ps(of_columns[c]));
      of[c] = _mm512_fmadd_ps(_mm512_load_ps(products + 16 * c), scale, of[c]);
    });
  }
  // Products of integers in parts: of upper parts with upper ones, of upper with lower, lower with upper, lower with
  // lower. If columns have no upper parts, the latter two.
  template <bool has_upper>
  void add(const int32_t (*products)[256], const float* of_columns, const float* of_rows) {
    const __m512 rows = _mm512_load_ps(of_rows);
    each_column([&](auto c) {
      const auto part = [&](int i) { return _mm512_load_si512(products[i] + 16 * c); };
      __m512i whole = part(2);
      if constexpr (has_upper) {
        whole = _mm512_add_epi32(_mm512_slli_epi32(part(0), 7), _mm512_add_epi32(whole, part(1)));
      }
      whole = _mm512_add_epi32(_mm512_slli_epi32(whole, 7), part(3));
      const __m512 scale = _mm512_mul_ps(rows, _mm512_set1_ps(of_columns[c]));
      of[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, of[c]);
    });
  }
  void add(const float* of_columns, const float* of_rows) {
    const __m512 rows = _mm512_load_ps(of_rows);
    each_column([&](auto c) { of[c] = _mm512_fmadd_ps(_mm512_set1_ps(of_columns[c]), rows, of[c]); });
  }
};
