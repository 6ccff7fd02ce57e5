// What a matrix product is computed of: rows of activations, and weights as a GGUF file has them.
//
// The promise: a row's numbers depend on that row and the weights alone, on every machine. So a number is
// summed in one order, however many rows there are and whoever computes them.
//
// Plain weights (float32, float16, bfloat16, and what ggml unpacks to float32): sixteen lanes, of which lane i
// takes the products i, i + 16, i + 32 .. by fused multiplications and additions. After every 512 products
// the lanes are joined in halves, and the sums are added in order. Activations are not rounded.
//
// Groups (weight_kernels.hpp has the types): integers of at most eight bits, with a scale for each group of 32.
// Activations are rounded to sixteen bits, with a scale for each run of 32. So a group's sum is exact in integers,
// in any order. The groups' sums are added in order, in float32.
//
// Super-blocks: 256 integers of at most six bits. Their scales are integers, too, times one that is float16.
// Activations are rounded to eight bits, with a step for each run of 32, one to sixteen times the scale of all 256. So
// a super-block's sum is exact in integers. Eight bits are twice as fast as sixteen, and what they lose is less than
// what such weights have lost.
//
// Tiles, where there is AMX, of bfloat16 (simd_amx.cpp): activations are rounded to sixteen bits, as the sum of two
// numbers of bfloat16. The instruction adds the products of 32 numbers; its sums are added in order. So this type has
// other bits with AMX than without. Packed weights have the same bits in tiles as elsewhere (tiled_packed_kernels.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace tinker {

constexpr int kSpan = 512;      // products after which the lanes are joined; a multiple of every block of weights
constexpr int kColumns = 48;    // columns whose plain weights are unpacked together, for many rows
constexpr int kRun = 32;        // activations that share a scale
constexpr int kStretch = 256;   // packed weights of a row that are unpacked together; the largest block
constexpr int kPackedColumns = 48;  // columns whose packed weights are
constexpr size_t kPanelSize = static_cast<size_t>(kColumns) * kSpan + 16;  // floats of scratch memory, on a line

// One row of activations, and its outputs. After the last number there are zeros up to whole lanes.
struct ProductRow {
  const float* input;
  float* output;
};

// Of 32 activations: their scale, and the integers' sum. NaN is the scale where an activation is no number.
struct Run {
  float scale;
  int32_t sum;
};

// Activations in integers of sixteen bits: an activation is about its integer times its run's scale.
struct PackedRow {
  using Number = int16_t;
  using Scale = Run;
  static constexpr int kScaled = kRun;  // activations of a scale

  const int16_t* numbers;
  const Run* scales;
  float* output;
};

// Of 256 activations, in eight runs: their scale, NaN as above; and the steps of the runs, integers up to 16.
struct SuperRun {
  float scale;
  int16_t steps[8];
  int32_t step_pairs[8];  // each step twice, in sixteen bits
  int16_t sums[16];  // of the first sixteen of each run, times the step; then of the last sixteen
};

// Activations in integers of eight bits: an activation is about its integer times its run's step times the scale.
struct SuperRow {
  using Number = int8_t;
  using Scale = SuperRun;
  static constexpr int kScaled = kStretch;

  const int8_t* numbers;
  const SuperRun* scales;
  float* output;
};

// The same as sums of two numbers of bfloat16: the nearest, and what is left. Up to kRowsOfTile rows of a matrix are a
// block: for each 32 numbers, the nearest of all its rows, then what is left of all. Pairs of neighbouring numbers lie
// beside those of the other rows. `numbers` is where the row's first pair is.
constexpr int kRowsOfTile = 16;
constexpr int kTiledRows = 2 * kRowsOfTile;        // two blocks; up to them, weights are read where they are
constexpr int kStripColumns = 2 * kRowsOfTile;     // of two tiles
constexpr int kTiledColumns = 4 * kStripColumns;   // whose weights are unpacked together
constexpr int kTiledDepth = 512;    // numbers of each, or up to twice as many

struct TiledRow {
  uint16_t* numbers;
  int64_t n_together;  // rows of the block
  float* output;
};

constexpr size_t kLine = 64;  // bytes of a cache line, and of a row of a tile

// The first address from p on where a line begins.
template <class T>
static inline T* on_line(T* p) {
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(p) + kLine - 1) / kLine * kLine);
}

// A stretch of a block of sixteen rows for tiles. Beside groups, activations are sums of two numbers of bfloat16:
// multiples of 256, and what is left. Pairs of neighbouring numbers lie beside those of the other rows.
struct alignas(kLine) GroupStretch {
  static constexpr int kRuns = kStretch / kRun, kTile = kRowsOfTile * kRun;

  uint16_t numbers[kRuns][2][kTile];
  float scales[kRuns][kRowsOfTile], sums[kRuns][kRowsOfTile];  // of each run: of its activations
};

// Beside super-blocks, activations times their steps are integers of twelve bits: multiples of 128, and what is left,
// in eight bits each. Four neighbours lie beside those of the other rows. Sums are those of SuperRun in
// bfloat16: multiples of 256, then what is left.
struct alignas(kLine) SuperStretch {
  static constexpr int kDepth = 64, kSteps = kStretch / kDepth, kTile = kRowsOfTile * kDepth;

  int8_t upper[kSteps][kTile], lower[kSteps][kTile];
  uint16_t sums[kRowsOfTile * kRun];
  float scales[kRowsOfTile];
};

template <class Stretch>
struct StretchRow {
  Stretch* stretches;  // of the row's block
  float* output;
};

// Floats of a stretch of sixteen columns of packed weights in tiles, at most.
constexpr size_t kStretchColumnsSize = 2336;

// Floats of scratch memory for some rows: weights to multiply, and sums.
constexpr size_t tiled_scratch(int64_t n_rows) {
  const auto n_blocks = static_cast<size_t>(n_rows / kRowsOfTile + 2);
  constexpr size_t plain = kTiledColumns * kTiledDepth;
  constexpr size_t packed = kTiledColumns / kRowsOfTile * kStretchColumnsSize;
  return (plain > packed ? plain : packed) + kTiledColumns * n_blocks * kRowsOfTile + kRowsOfTile;
}

// float32 from packed weights: ggml_to_float_t.
using ToFloat = void (*)(const void* from, float* to, int64_t n);

// A matrix of weights. Each of its rows makes a column of the product.
struct Weights {
  const char* data;
  size_t stride;       // bytes from one row to the next
  int64_t size;        // numbers of a row
  int32_t type;        // enum ggml_type
  size_t span_stride;  // bytes of 512 numbers
  ToFloat to_float;    // ggml's, for types that no kernel here unpacks
};

// Columns first .. first + n_columns of a product, for some rows; `panel` is scratch memory of kPanelSize floats, or of
// tiled_scratch(n_rows).
template <class Row>
using Multiply = void (*)(const Weights& weights, int64_t first, int n_columns, const Row* rows, int n_rows,
                          float* panel);

}  // namespace tinker
