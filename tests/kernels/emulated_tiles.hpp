// AMX's tiles in plain C++, in place of tiles.hpp: for tests on processors without them.
//
// As Intel defines TDPBF16PS (Software Developer's Manual, volume 2): the products of even places and those of odd
// ones are added apart, by fused multiplication and addition, then together, then to the tile. Each result is rounded
// to the nearest, ties to even. Subnormal numbers are zero, before and after. What the processor would end the
// process for ends it here too: shapes that do not fit, tiles without a configuration.

#include <cmath>
#include <cstdlib>

#define LOAD_TILE(tile, from, stride) load_tile(tile, from, static_cast<int64_t>(stride))
#define STORE_TILE(tile, to, stride) store_tile(tile, to, static_cast<int64_t>(stride))
#define CLEAR_TILE(tile) clear_tile(tile)
#define ADD_PRODUCTS(tile, a, b) add_products(tile, a, b)

struct Tile {
  int n_rows, n_bytes;
  union {
    float floats[16][16];
    uint16_t pairs[16][32];
  };
};

thread_local Tile tiles[8];

inline void check(bool is_right) {
  if (!is_right) std::abort();
}

inline void release_tiles() { memset(tiles, 0, sizeof tiles); }

inline void configure_tiles(const volatile TileShapes& shapes) {
  check(shapes.palette == 1 && shapes.start_row == 0);
  for (const volatile uint8_t& byte : shapes.reserved) check(byte == 0);
  release_tiles();
  for (int i = 0; i < 16; ++i) {
    const int n_rows = shapes.n_rows[i], n_bytes = shapes.bytes_of_row[i];
    check(n_rows <= 16 && n_bytes <= 64 && (n_rows == 0) == (n_bytes == 0) && (i < 8 || n_rows == 0));
    if (i < 8) tiles[i].n_rows = n_rows, tiles[i].n_bytes = n_bytes;
  }
}

inline void clear_tile(int tile) {
  check(tiles[tile].n_rows > 0);
  memset(tiles[tile].floats, 0, sizeof tiles[tile].floats);
}

inline void load_tile(int tile, const void* from, int64_t stride) {
  clear_tile(tile);
  Tile& to = tiles[tile];
  for (int r = 0; r < to.n_rows; ++r) memcpy(to.floats[r], static_cast<const char*>(from) + stride * r, to.n_bytes);
}

inline void store_tile(int tile, void* to, int64_t stride) {
  const Tile& from = tiles[tile];
  check(from.n_rows > 0);
  for (int r = 0; r < from.n_rows; ++r) memcpy(static_cast<char*>(to) + stride * r, from.floats[r], from.n_bytes);
}

inline float from_bfloat(uint16_t number) {
  const uint32_t bits = static_cast<uint32_t>(number) << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

[[gnu::noinline]] void add_products(const Tile& a, const Tile& b, Tile& sums) {
  for (int m = 0; m < a.n_rows; ++m) {
    float even[16] = {}, odd[16] = {};
    for (int k = 0; k < b.n_rows; ++k) {
      const float x = from_bfloat(a.pairs[m][2 * k]), y = from_bfloat(a.pairs[m][2 * k + 1]);
      for (int n = 0; n < 16; ++n) {
        even[n] = std::fma(x, from_bfloat(b.pairs[k][2 * n]), even[n]);
        odd[n] = std::fma(y, from_bfloat(b.pairs[k][2 * n + 1]), odd[n]);
      }
    }
    for (int n = 0; n < sums.n_bytes / 4; ++n) sums.floats[m][n] += even[n] + odd[n];
  }
}

inline void add_products(int tile, int left, int right) {
  Tile& sums = tiles[tile];
  const Tile &a = tiles[left], &b = tiles[right];
  check(sums.n_rows > 0 && a.n_rows == sums.n_rows && b.n_bytes == sums.n_bytes && a.n_bytes == 4 * b.n_rows);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x9fc0);  // subnormal numbers are zero; no exceptions
  add_products(a, b, sums);
  _mm_setcsr(before);
}

inline void transpose16(const float* from, int stride, float* to, int to_stride) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) memcpy(to + j * to_stride + i, from + i * stride + j, sizeof *to);
  }
}

inline bool may_use_tiles() { return true; }

// --- beside the tiles, as in avx512_tiles.hpp ---

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

inline void from_octets(Octets a, const BfloatTable& table, uint16_t* to) {
  uint8_t places[32];
  memcpy(places, &a, sizeof places);
  for (int i = 0; i < 32; ++i) to[i] = table.of[places[i]];
}

inline void from_octets(Octets a, int less, int scale, int last_scale, uint16_t* upper, uint16_t* lower) {
  uint8_t numbers[32];
  memcpy(numbers, &a, sizeof numbers);
  for (int i = 0; i < 32; ++i) {
    const int scaled = (numbers[i] - less) * (i < 16 ? scale : last_scale);
    if (upper) upper[i] = tinker::bfloat_of(scaled & ~255);
    lower[i] = tinker::bfloat_of(upper ? scaled & 255 : scaled);
  }
}

struct IntegerSums {
  int32_t of[16][16] = {};

  void store(float* to) const {
    for (int i = 0; i < 256; ++i) to[i] = static_cast<float>(of[i / 16][i % 16]);
  }
  void add(const float* products, const int32_t* of_rows) {
    for (int i = 0; i < 256; ++i) of[i / 16][i % 16] += static_cast<int32_t>(products[i]) * of_rows[i % 16];
  }
  void add(const float* products, const int32_t* of_columns, const int32_t* of_rows) {
    for (int i = 0; i < 256; ++i) {
      of[i / 16][i % 16] += static_cast<int32_t>(products[i]) * of_columns[i / 16] * of_rows[i % 16];
    }
  }
};

struct Sums {
  float of[16][16];

  explicit Sums(const float* from) { memcpy(of, from, sizeof of); }
  void store(float* to) const { memcpy(to, of, sizeof of); }

  void add(const float* products, const float* of_columns, const float* of_rows) {
    for (int c = 0; c < 16; ++c) {
      for (int r = 0; r < 16; ++r) of[c][r] = std::fma(products[16 * c + r], of_rows[r] * of_columns[c], of[c][r]);
    }
  }
  void add(const float* of_columns, const float* of_rows) {
    for (int c = 0; c < 16; ++c) {
      for (int r = 0; r < 16; ++r) of[c][r] = std::fma(of_columns[c], of_rows[r], of[c][r]);
    }
  }
};
