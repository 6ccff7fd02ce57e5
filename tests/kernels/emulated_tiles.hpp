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
#define ADD_PRODUCTS_OF_BYTES(tile, a, b) add_products_of_bytes(tile, a, b)

struct Tile {
  int n_rows, n_bytes;
  union {
    float floats[16][16];
    uint16_t pairs[16][32];
    int32_t integers[16][16];
    int8_t bytes[16][64];
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

inline void check_shapes(const Tile& a, const Tile& b, const Tile& sums) {
  check(sums.n_rows > 0 && a.n_rows == sums.n_rows && b.n_bytes == sums.n_bytes && a.n_bytes == 4 * b.n_rows);
}

inline void add_products(int tile, int left, int right) {
  Tile& sums = tiles[tile];
  const Tile &a = tiles[left], &b = tiles[right];
  check_shapes(a, b, sums);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x9fc0);  // subnormal numbers are zero; no exceptions
  add_products(a, b, sums);
  _mm_setcsr(before);
}

// TDPBSSD: sums wrap around.
inline void add_products_of_bytes(int tile, int left, int right) {
  Tile& sums = tiles[tile];
  const Tile &a = tiles[left], &b = tiles[right];
  check_shapes(a, b, sums);
  for (int m = 0; m < a.n_rows; ++m) {
    for (int k = 0; k < 4 * b.n_rows; ++k) {
      for (int n = 0; n < sums.n_bytes / 4; ++n) {
        const uint32_t product = static_cast<uint32_t>(a.bytes[m][k] * b.bytes[k / 4][4 * n + k % 4]);
        sums.integers[m][n] = static_cast<int32_t>(static_cast<uint32_t>(sums.integers[m][n]) + product);
      }
    }
  }
}

inline void transpose16(const float* from, int stride, float* to, int to_stride) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) memcpy(to + j * to_stride + i, from + i * stride + j, sizeof *to);
  }
}
