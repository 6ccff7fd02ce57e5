// What is done with AVX-512 to what goes into tiles and comes out of them; included inside an unnamed namespace.

#include "avx512_transpose.hpp"

// Integers of 32 weights as numbers of bfloat16. Of sixteen bytes the lower four bits come first, then the upper ones.
// A number's place in a table has five bits; what is above is not looked at.

inline void look_up(__m512i places, const BfloatTable& table, uint16_t* to) {
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(places, _mm512_loadu_si512(table.of)));
}

inline void from_octets(Octets a, const BfloatTable& table, uint16_t* to) {
  look_up(_mm512_cvtepu8_epi16(a.v), table, to);
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

inline void from_signed(const uint8_t* p, uint16_t* to) { write_integers(_mm512_cvtepi8_epi16(load_256(p)), to); }

// Integers without a sign, less a number, times a scale: multiples of 256 and what is left, or all in `lower` if `upper`
// is null.
inline void from_octets(Octets a, int less, int scale, int last_scale, uint16_t* upper, uint16_t* lower) {
  const __m512i scales = _mm512_inserti64x4(_mm512_set1_epi16(static_cast<short>(scale)),
                                            _mm256_set1_epi16(static_cast<short>(last_scale)), 1);
  const __m512i integers = _mm512_sub_epi16(_mm512_cvtepu8_epi16(a.v), _mm512_set1_epi16(static_cast<short>(less)));
  const __m512i scaled = _mm512_mullo_epi16(integers, scales);
  if (!upper) return write_integers(scaled, lower);
  write_integers(_mm512_andnot_si512(_mm512_set1_epi16(255), scaled), upper);
  write_integers(_mm512_and_si512(_mm512_set1_epi16(255), scaled), lower);
}

// Calls f(c) for each of sixteen columns. Numbers are known when the code is compiled, so that sums stay in registers.
template <class F, int... c>
inline void each_column(F f, std::integer_sequence<int, c...>) {
  (f(std::integral_constant<int, c>()), ...);
}
template <class F>
inline void each_column(F f) {
  each_column(f, std::make_integer_sequence<int, 16>());
}

// Sums of products of integers, of sixteen columns with the sixteen rows of a block.
struct IntegerSums {
  __m512i of[16];

  IntegerSums() {
    each_column([&](auto c) { of[c] = _mm512_setzero_si512(); });
  }
  void store(float* to) const {
    each_column([&](auto c) { _mm512_store_ps(to + 16 * c, _mm512_cvtepi32_ps(of[c])); });
  }

  // Adds products, a row of them for each column, times a number of each row.
  void add(const float* products, const int32_t* of_rows) {
    const __m512i rows = _mm512_load_si512(of_rows);
    each_column([&](auto c) {
      const __m512i found = _mm512_cvtps_epi32(_mm512_load_ps(products + 16 * c));
      of[c] = _mm512_add_epi32(of[c], _mm512_mullo_epi32(found, rows));
    });
  }
  // And times a number of each column. Both are small.
  void add(const float* products, const int32_t* of_columns, const int32_t* of_rows) {
    const __m512i rows = _mm512_load_si512(of_rows);
    each_column([&](auto c) {
      const __m512i found = _mm512_cvtps_epi32(_mm512_load_ps(products + 16 * c));
      const __m512i scales = _mm512_mullo_epi16(_mm512_set1_epi32(of_columns[c]), rows);
      of[c] = _mm512_add_epi32(of[c], _mm512_mullo_epi32(found, scales));
    });
  }
};

// The same of floats.
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
  void add(const float* of_columns, const float* of_rows) {
    const __m512 rows = _mm512_load_ps(of_rows);
    each_column([&](auto c) { of[c] = _mm512_fmadd_ps(_mm512_set1_ps(of_columns[c]), rows, of[c]); });
  }
};
