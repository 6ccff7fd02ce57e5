// AMX: products with float16 and bfloat16 weights in tiles, everything else as with AVX-512. Packed weights gain
// little: a tile's instruction adds one group of 32, and then the scales take as long as without tiles.
//
// 128 columns of 256 weights are unpacked to a panel, in which a pair of neighbouring weights of sixteen columns
// make a row of a tile. Then each block of rows is multiplied by the panel's columns, 64 at a time. Sums are kept in
// memory from one panel to the next. So a sum goes over all k in order, whatever is computed beside it.
//
// bfloat16 has eight bits. Activations are two numbers of bfloat16, and so is a weight of float16, exactly. Of its
// four products that of the two small numbers is left out: less than 2^-16 of the whole. What is no number gives
// infinity or NaN in its row or column, and nothing elsewhere.
//
// A thread's tiles are configured within a task and released at its end: torch in the same process may use its own.
#include "simd_path.hpp"

#if defined(TINKER_LOCAL_EMULATE_AMX) || (defined(TINKER_LOCAL_AMX) && defined(__AVX512F__))
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace {

// How many rows the tiles of this thread have, and how many bytes each row: LDTILECFG's 64 bytes.
struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes_of_row[16];
  uint8_t n_rows[16];
};
static_assert(sizeof(TileShapes) == 64);

#if defined(TINKER_LOCAL_EMULATE_AMX)
#include "emulated_tiles.hpp"
#else
#include "avx512_transpose.hpp"
#include "tiles.hpp"
#endif

using tinker::kStretch;

constexpr int kSide = tinker::kRowsOfTile;  // rows of a tile, and floats of each
constexpr int kTile = kSide * kSide;        // floats of a tile
constexpr int kStep = tinker::kRun;         // numbers that one instruction adds the products of
constexpr int kSteps = kStretch / kStep;
constexpr int kTogether = 4;  // tiles of columns; sums of so many hide the time that each takes
constexpr int kStrip = kTogether * kSide;
static_assert(tinker::kTiledColumns % kStrip == 0);

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

// With zeros up to whole steps.
void split_row(const float* x, int64_t n, const tinker::TiledRow& row) {
  uint16_t* to = row.numbers;
  for (int64_t k = 0; k < n; k += kStep, to += 2 * row.step) {
    float numbers[kStep] = {};
    uint16_t high[kStep], low[kStep];
    memcpy(numbers, x + k, static_cast<size_t>(n - k < kStep ? n - k : kStep) * sizeof(float));
    for (int i = 0; i < kStep; ++i) split(numbers[i], high[i], low[i]);
    memcpy(to, high, sizeof high);
    memcpy(to + row.step, low, sizeof low);
  }
}

using Stretch = uint16_t[kStretch];

// Types of weights: a stretch of a row in bfloat16. What F16's numbers have left is kSide stretches behind.
struct BF16 {
  static constexpr int kType = 30, kParts = 1;
  static void read(const Stretch& from, Stretch* to) { memcpy(*to, from, sizeof from); }
};

struct F16 {
  static constexpr int kType = 1, kParts = 2;
  // The nearest number of eight bits, and the other three.
  static void read(const Stretch& from, Stretch* to) {
    float numbers[kStretch];
    for (int i = 0; i < kStretch; i += 8) {
      _mm256_storeu_ps(numbers + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
    for (int i = 0; i < kStretch; ++i) {
      const uint32_t upper = nearest(bits_of(numbers[i]));
      to[0][i] = static_cast<uint16_t>(upper >> 16);
      to[kSide][i] = static_cast<uint16_t>(bits_of(numbers[i] - float_of(upper)) >> 16);
    }
  }
};

// n columns of a panel, in whole strips. Columns behind the last are the last one's once more. Behind the last number
// of a column there are zeros.
template <class Type>
void unpack(const tinker::Weights& weights, int64_t first, int n, int64_t k, float* panel) {
  const size_t left = static_cast<size_t>(weights.size - k), numbers = left < kStretch ? left : kStretch;
  const int n_tiles = (n + kStrip - 1) / kStrip * kTogether;
  const auto column = [&](int c) {
    return weights.data + static_cast<size_t>(first + (c < n ? c : n - 1)) * weights.stride + 2 * static_cast<size_t>(k);
  };
  alignas(tinker::kLine) Stretch stretches[Type::kParts * kSide];
  for (int tile = 0; tile < n_tiles; ++tile) {
    for (int c = 0; c < kSide; ++c) {
      const int number = tile * kSide + c;
      const char* next = tile + 1 < n_tiles ? column(number + kSide) : column(c) + sizeof(Stretch);
      for (size_t i = 0; i < sizeof(Stretch); i += tinker::kLine) __builtin_prefetch(next + i);
      Stretch whole = {};
      memcpy(whole, column(number), 2 * numbers);
      Type::read(whole, stretches + c);
    }
    for (int part = 0; part < Type::kParts; ++part, panel += kSteps * kTile) {
      for (int step = 0; step < kSteps; ++step) {
        const auto* pairs = reinterpret_cast<const float*>(stretches[part * kSide] + step * kStep);
        transpose16(pairs, kStretch / 2, panel + step * kTile, kSide);
      }
    }
  }
}

// Tiles 0 to 3 are sums; 4 and 5 activations, high and low; 6 and 7 weights.
void configure(int n_rows) {
  volatile TileShapes shapes = {};  // GCC 12 drops what is written to it otherwise
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.bytes_of_row[i] = tinker::kLine;
    shapes.n_rows[i] = static_cast<uint8_t>(i < 6 ? n_rows : kSide);
  }
  configure_tiles(shapes);
}

#define ADD_COLUMNS(tile)                                          \
  LOAD_TILE(6, w + tile * kParts * kSteps * kTile);                \
  ADD_PRODUCTS(tile, 4, 6);                                        \
  ADD_PRODUCTS(tile, 5, 6);                                        \
  if constexpr (kParts == 2) {                                     \
    LOAD_TILE(7, w + (tile * kParts + 1) * kSteps * kTile);        \
    ADD_PRODUCTS(tile, 4, 7);                                      \
  }

// Adds to sums the products of a block of rows with a strip of a panel.
template <int kParts>
inline void multiply_strip(const uint16_t* x, int64_t step, int n_steps, const float* w, float* sums) {
  LOAD_TILE(0, sums);
  LOAD_TILE(1, sums + kTile);
  LOAD_TILE(2, sums + 2 * kTile);
  LOAD_TILE(3, sums + 3 * kTile);
  for (; n_steps; --n_steps, x += 2 * step, w += kTile) {
    LOAD_TILE(4, x);
    LOAD_TILE(5, x + step);
    ADD_COLUMNS(0)
    ADD_COLUMNS(1)
    ADD_COLUMNS(2)
    ADD_COLUMNS(3)
  }
  STORE_TILE(0, sums);
  STORE_TILE(1, sums + kTile);
  STORE_TILE(2, sums + 2 * kTile);
  STORE_TILE(3, sums + 3 * kTile);
}

#undef ADD_COLUMNS

// The sums of a block of rows in tiles, to the outputs of n columns.
void write(const float* sums, const tinker::TiledRow* rows, int n_rows, int64_t first, int n) {
  for (int c = 0; c < n; c += kSide, sums += kTile) {
    const size_t bytes = static_cast<size_t>(n - c < kSide ? n - c : kSide) * sizeof(float);
    for (int r = 0; r < n_rows; ++r) memcpy(rows[r].output + first + c, sums + r * kSide, bytes);
  }
}

// n columns at most kTiledColumns.
template <class Type>
void multiply_panel(const tinker::Weights& weights, int64_t first, int n, const tinker::TiledRow* rows, int n_rows,
                    float* scratch) {
  float* panel = tinker::on_line(scratch);
  float* sums = panel + tinker::kTiledColumns * kStretch;
  const int of_block = (n + kStrip - 1) / kStrip * kTogether * kTile;
  const auto rows_of = [&](int r) { return n_rows - r < kSide ? n_rows - r : kSide; };
  memset(sums, 0, static_cast<size_t>((n_rows + kSide - 1) / kSide * of_block) * sizeof(float));
  int configured = 0;
  for (int64_t k = 0; k < weights.size; k += kStretch) {
    const int64_t left = (weights.size - k + kStep - 1) / kStep;
    const int n_steps = static_cast<int>(left < kSteps ? left : kSteps);
    unpack<Type>(weights, first, n, k, panel);
    float* to = sums;
    for (int r = 0; r < n_rows; r += kSide) {
      if (configured != rows_of(r)) configure(configured = rows_of(r));
      const float* w = panel;
      for (int c = 0; c < n; c += kStrip, to += kTogether * kTile, w += kTogether * Type::kParts * kSteps * kTile) {
        multiply_strip<Type::kParts>(rows[r].numbers + k / kStep * 2 * rows[r].step, rows[r].step, n_steps, w, to);
      }
    }
  }
  for (int r = 0; r < n_rows; r += kSide) write(sums + r / kSide * of_block, rows + r, rows_of(r), first, n);
}

template <class Type>
void multiply(const tinker::Weights& weights, int64_t first, int n_columns, const tinker::TiledRow* rows, int n_rows,
              float* scratch) {
  for (int c = 0; c < n_columns; c += tinker::kTiledColumns) {
    const int n = n_columns - c < tinker::kTiledColumns ? n_columns - c : tinker::kTiledColumns;
    multiply_panel<Type>(weights, first + c, n, rows, n_rows, scratch);
  }
  release_tiles();
}

tinker::Multiply<tinker::TiledRow> tiled_product(int32_t type) {
  return type == BF16::kType ? multiply<BF16> : type == F16::kType ? multiply<F16> : nullptr;
}

// What the path is but for products in tiles.
const tinker::SimdPath* base() {
  const tinker::SimdPath* avx512 = tinker::avx512_path();
#if defined(TINKER_LOCAL_EMULATE_AMX)
  return avx512 ? avx512 : tinker::avx2_path();
#else
  return avx512;
#endif
}

bool is_permitted = false;

}  // namespace

bool tinker::request_amx() {
  static const bool answer = base() && may_use_tiles();
  return is_permitted = answer;
}

const tinker::SimdPath* tinker::amx_path() {
  if (!is_permitted) return nullptr;
  static const SimdPath path = [] {
    SimdPath result = *base();
    result.name = "amx";
    result.split_row = split_row;
    result.tiled_product = tiled_product;
    return result;
  }();
  return &path;
}
#else
bool tinker::request_amx() { return false; }
const tinker::SimdPath* tinker::amx_path() { return nullptr; }
#endif
