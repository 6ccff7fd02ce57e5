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

inline void from_signed(const uint8_t* p, uint16_t* to) {
  const auto upper_halves = [](Bytes a) { return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a.v))); };
  alignas(64) static constexpr uint16_t places[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(upper_halves(load_bytes(p)), _mm512_load_si512(places),
                                                    upper_halves(load_bytes(p + 16))));
}

// Sums of sixteen columns with the sixteen rows of a block.
struct Sums {
  __m512 of[16];

  Sums() {
    for (__m512& column : of) column = _mm512_setzero_ps();
  }
  explicit Sums(const float* from) {
    for (int c = 0; c < 16; ++c) of[c] = _mm512_load_ps(from + 16 * c);
  }
  void store(float* to) const {
    for (int c = 0; c < 16; ++c) _mm512_store_ps(to + 16 * c, of[c]);
  }

  // Adds products, a row of them for each column, times the column's scale and the row's.
  void add(const float* products, const float* of_columns, const float* of_rows) {
    const __m512 rows = _mm512_load_ps(of_rows);
    for (int c = 0; c < 16; ++c) {
      const __m512 scale = _mm512_mul_ps(rows, _mm512_set1_ps(of_columns[c]));
      of[c] = _mm512_fmadd_ps(_mm512_load_ps(products + 16 * c), scale, of[c]);
    }
  }
  void add(const float* of_columns, const float* of_rows) {
    const __m512 rows = _mm512_load_ps(of_rows);
    for (int c = 0; c < 16; ++c) of[c] = _mm512_fmadd_ps(_mm512_set1_ps(of_columns[c]), rows, of[c]);
  }
};
