// What attention is computed of: queries, and a cache of keys and values in cells.
//
// The promise: a query's numbers depend on the keys and values that it sees and on their positions. They do
// not depend on the cells that hold them, nor on what else the cache holds, nor on the queries beside it, nor
// on the number of threads. So every sum runs in order of position, in blocks of 64 positions. After every
// 512 positions the sum is closed, as a part, and parts are joined in order: threads may then share the parts
// of one query, and the bits are those of a single thread.
#pragma once

#include <math.h>    // tanhf, in no namespace: no two instruction sets may share a symbol
#include <string.h>  // memcpy

#include <cstddef>
#include <cstdint>

namespace tinker {

constexpr int kKeys = 64;       // positions of a block
constexpr int kMostRows = 256;  // rows of a tile
constexpr int kPart = 512;      // positions of a part

// The cells of 64 positions, in order.
struct CellBlock {
  static constexpr int32_t kNone = -1;  // no cell
  int32_t cells[kKeys];
  int32_t n_cells;
};

// The cells that one token sees: those of positions `first` to `last`. Tokens that see the same cells of a
// block point to the same CellBlock.
struct SeenCells {
  const CellBlock* const* blocks;  // of 64 positions each, from block number `first_block` on
  int32_t first_block;
  int32_t first, last;  // last < first: none
  bool is_plain;        // the mask has 0 for all of them

  const CellBlock* block(int64_t number) const {
    if (number < first / kKeys || number > last / kKeys || last < first) return nullptr;
    return blocks[number - first_block];
  }
};

// One head of one query, and where its output goes.
struct AttentionRow {
  const float* query;
  const SeenCells* seen;
  const uint16_t* mask;  // float16, one a cell, added to the scaled products; null for none
  float slope;           // what the mask is multiplied by
  const float* sink;     // a logit with no value; null for none
  float* output;
};

// The cells of one head: `key_size` and `value_size` numbers each.
struct AttentionCells {
  const char* keys;
  const char* values;
  int32_t key_type, value_type;     // enum ggml_type: float16, float32 or q8_0
  size_t key_stride, value_stride;  // bytes from one cell to the next
  int key_size, value_size;
  float scale;     // of the products
  float soft_cap;  // c tanh(x / c); 0 for none
};

}  // namespace tinker
