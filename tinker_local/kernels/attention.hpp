// What attention is computed of: queries, and a cache of keys and values in cells.
//
// The promise: a query's numbers do not depend on which other queries are computed with it, nor on how many
// threads there are. So every sum runs over the cells in their order, in blocks of 64. After every 512 cells
// the sum is closed, as a part, and parts are joined in order: threads may then share the cells of one query,
// and the bits are those of a single thread.
#pragma once

#include <math.h>    // tanhf, in no namespace: no two instruction sets may share a symbol
#include <string.h>  // memcpy

#include <cstddef>
#include <cstdint>

namespace tinker {

constexpr int kKeys = 64;  // cells of a block
constexpr int kRows = 64;  // rows of a tile, at most
constexpr int kPart = 512;  // cells of a part

// One head of one query, and where its output goes.
struct AttentionRow {
  const float* query;
  const uint16_t* mask;  // float16, one a cell, added to the scaled products; null for none
  float slope;           // what the mask is multiplied by
  const float* sink;     // a logit with no value; null for none
  float* output;
};

// The cells that a tile's rows look at: float16, `key_size` and `value_size` numbers each.
struct AttentionCells {
  const char* keys;
  const char* values;
  size_t key_stride, value_stride;  // bytes from one cell to the next
  int64_t n_cells;
  int key_size, value_size;
  float scale;     // of the products
  float soft_cap;  // c tanh(x / c); 0 for none
};

}  // namespace tinker
