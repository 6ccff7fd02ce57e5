// What goes into tiles and comes out of them in plain C++, in place of avx512_tiles.hpp.

inline void from_nibbles(const uint8_t* packed, const BfloatTable& table, uint16_t* to) {
  for (int i = 0; i < 32; ++i) to[i] = table.of[packed[i % 16] >> (i < 16 ? 0 : 4) & 15];
}
inline void from_nibbles(const uint8_t* packed, const uint8_t* fifth, const BfloatTable& table, uint16_t* to) {
  for (int i = 0; i < 32; ++i) {
    to[i] = table.of[(packed[i % 16] >> (i < 16 ? 0 : 4) & 15) | (fifth[i / 8] >> i % 8 & 1) << 4];
  }
}
inline void from_signed(const uint8_t* p, uint16_t* to) {
  for (int i = 0; i < 32; ++i) to[i] = tinker::bfloat_of(static_cast<int8_t>(p[i]));
}

inline void write_twice(Shorts a, uint16_t* to) {
  int16_t integers[16];
  memcpy(integers, &a, sizeof integers);
  for (int i = 0; i < 32; ++i) to[i] = tinker::bfloat_of(integers[i % 16]);
}
inline void write_parts(const int16_t* from, uint16_t* to) {
  for (int i = 0; i < 16; ++i) {
    to[i] = tinker::bfloat_of(from[i] & ~255);
    to[16 + i] = tinker::bfloat_of(from[i] & 255);
  }
}

inline void scale_octets(Octets run, Octets next, int less, Shorts scales, int step, int8_t* upper, int8_t* lower) {
  uint8_t numbers[64];
  int16_t of[2][8];
  memcpy(numbers, &run, 32);
  memcpy(numbers + 32, &next, 32);
  memcpy(of, &scales, sizeof of);
  for (int i = 0; i < 64; ++i) {
    const int scaled = (numbers[i] - less) * of[i / 16 % 2][2 * step + i / 32];
    if (upper) upper[i] = static_cast<int8_t>(scaled >> 7);
    lower[i] = static_cast<int8_t>(upper ? scaled & 127 : scaled);
  }
}
inline void scale_octets(Octets run, Octets next, int less, Shorts scales, int step, int8_t* to) {
  scale_octets(run, next, less, scales, step, nullptr, to);
}

struct Sums {
  float of[16][16];

  explicit Sums(const float* from) { memcpy(of, from, sizeof of); }
  void store(float* to) const { memcpy(to, of, sizeof of); }

  void add(const float* products, const float* of_columns, const float* of_rows) {
    for (int c = 0; c < 16; ++c) {
      for (int r = 0; r < 16; ++r) of[c][r] = std::fma(products[16 * c + r], of_rows[r] * of_columns[c], of[c][r]);
    }
  }
  template <bool has_upper>
  void add(const int32_t (*products)[256], const float* of_columns, const float* of_rows) {
    for (int c = 0; c < 16; ++c) {
      for (int r = 0; r < 16; ++r) {
        const int i = 16 * c + r;
        const int mixed = has_upper ? 128 * products[0][i] + products[1][i] + products[2][i] : products[2][i];
        of[c][r] = std::fma(static_cast<float>(128 * mixed + products[3][i]), of_rows[r] * of_columns[c], of[c][r]);
      }
    }
  }
  void add(const float* of_columns, const float* of_rows) {
    for (int c = 0; c < 16; ++c) {
      for (int r = 0; r < 16; ++r) of[c][r] = std::fma(of_columns[c], of_rows[r], of[c][r]);
    }
  }
};
