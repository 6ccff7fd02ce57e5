// What is compiled for each instruction set (simd_*.cpp): work on blocks of 256 logits, and attention. Both
// are written once, over sixteen virtual lanes (block_kernels.hpp, attention_kernels.hpp). Every path
// performs the same IEEE operations in the same order, so every path gives the same bits; but tiles do not
// (product.hpp, simd_amx_attention.cpp).
#pragma once

#include <limits>

#include "activation.hpp"
#include "attention.hpp"
#include "product.hpp"

namespace tinker {

constexpr int kBlock = 256;
constexpr int kThresholds = 8;
constexpr float kLog2E = 1.44269504f;

// Weights are 2^((x - reference) * scale), so scale = log2(e) / temperature. NaN stays NaN.
struct SimdPath {
  const char* name;

  // Of each block: its largest logit, and its weights summed with that logit as the reference
  // (0 if the block is all -inf). A second scale is summed if `other_sums` is given.
  void (*scan)(const float* x, int n_blocks, float scale, float* maxima, float* sums,
               float other_scale, float* other_sums);

  // The weight of every logit.
  void (*weigh)(const float* x, int n_blocks, float reference, float scale, float* weights);

  // The weights of one block's logits that are at least `threshold`, summed.
  float (*sum_at_least)(const float* x, const float* weights, float threshold);

  // The same for eight thresholds at once, with the weights not kept.
  void (*sums_at_least)(const float* x, float reference, float scale, const float* thresholds,
                        float* sums);

  // Where one block's logits are in [low, high): positions in rising order; how many.
  int (*find)(const float* x, float low, float high, int* positions);

  // The largest logit, and nothing else: what reading costs.
  float (*maximum)(const float* x, int n_blocks);

  // Attention of at most kMostRows rows over the same cells; floats of scratch memory that it needs.
  void (*attend)(const AttentionCells& cells, const AttentionRow* rows, int n_rows, float* scratch);
  size_t (*attention_scratch)(int key_size, int value_size);

  // The same in two steps. Part number `part` of the cells, for which `sums` has room for `part_size` floats
  // a row; then all parts, one behind the other, joined.
  void (*attend_part)(const AttentionCells& cells, const AttentionRow* rows, int n_rows, int part,
                      float* scratch, float* sums);
  void (*join_parts)(const AttentionCells& cells, const AttentionRow* rows, int n_rows, int n_parts,
                     float* sums);
  size_t (*part_size)(int value_size);

  // Products with plain weights. Then those with packed weights: activations to integers, n of them, a multiple of
  // kScaled; and the kernel for a type, or null.
  Multiply<ProductRow> multiply_rows;
  void (*pack_groups)(const float* x, int64_t n, int16_t* numbers, Run* runs);
  Multiply<PackedRow> (*group_product)(int32_t type);
  void (*pack_super_blocks)(const float* x, int64_t n, int8_t* numbers, SuperRun* runs);
  Multiply<SuperRow> (*super_block_product)(int32_t type);

  // y = GELU of x, times the gates where there are some. y may be x or the gates.
  void (*activate)(const float* x, const float* gates, int64_t n, Gelu form, float* y);

  // A block of activations as tiles take them, rows of n numbers; and the kernel for a type of plain weights, or
  // null. Only where there are tiles.
  void (*split_block)(const float* const* x, int64_t n, const TiledRow& first) = nullptr;
  Multiply<TiledRow> (*tiled_product)(int32_t type) = nullptr;

  // The same for packed weights and many rows, of which up to sixteen make a block.
  void (*pack_group_block)(const float* const* x, int n_rows, int64_t n, GroupStretch* to) = nullptr;
  Multiply<StretchRow<GroupStretch>> (*tiled_group_product)(int32_t type) = nullptr;
  void (*pack_super_block)(const float* const* x, int n_rows, int64_t n, SuperStretch* to) = nullptr;
  Multiply<StretchRow<SuperStretch>> (*tiled_super_block_product)(int32_t type) = nullptr;
};

// Null where the compiler or the processor lacks the instructions.
const SimdPath* portable_path();
const SimdPath* avx2_path();
const SimdPath* avx_vnni_path();
const SimdPath* avx512_path();
const SimdPath* amx_path();  // null before `request_amx`
const SimdPath* neon_path();

// Asks Linux, once in a process, whether it may use AMX.
bool request_amx();

// The best of them, unless another was chosen.
const SimdPath& simd_path_in_use();

}  // namespace tinker
