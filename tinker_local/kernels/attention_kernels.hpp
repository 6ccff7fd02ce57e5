// Attention over `Lanes` (see block_kernels.hpp, which has exp2) and load_half, sixteen float16 numbers.
//
// Rows of queries that look at the same cells form a tile. A tile goes through the cells once, 64 at a
// time, and keeps for each row the largest product so far, the total of the weights and the weighted
// values, both relative to that largest product. So softmax needs no second pass (Milakov and Gimelshein,
// 2018; Dao et al., "FlashAttention", 2022).
//
// A row's numbers do not depend on the rows beside it. Rows share the loads of keys and values and nothing
// else. Masked cells have weight 0, and adding 0 times a finite number changes nothing: so a block that
// only some rows see can be computed for all of them.

// c += a b for R rows and W * 16 columns, all of c in registers meanwhile. R * W accumulators hide the
// latency of the additions; a[r][i] is the factor of all lanes of row r.
template <int R, int W>
inline void multiply(const float* a, int a_stride, const float* b, int b_stride, int n, float* c,
                     int c_stride) {
  Lanes sums[R][W];
  for (int r = 0; r < R; ++r) {
    for (int w = 0; w < W; ++w) sums[r][w] = load(c + r * c_stride + w * kLanes);
  }
  for (int i = 0; i < n; ++i) {
    Lanes column[W];
    for (int w = 0; w < W; ++w) column[w] = load(b + i * b_stride + w * kLanes);
    for (int r = 0; r < R; ++r) {
      const Lanes factor = all(a[r * a_stride + i]);
      for (int w = 0; w < W; ++w) sums[r][w] = fma(factor, column[w], sums[r][w]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int w = 0; w < W; ++w) store(c + r * c_stride + w * kLanes, sums[r][w]);
  }
}

// The same for any number of rows: four at a time, then the rest.
template <int W>
inline void multiply_rows(int rows, const float* a, int a_stride, const float* b, int b_stride, int n,
                          float* c, int c_stride) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    multiply<4, W>(a + r * a_stride, a_stride, b, b_stride, n, c + r * c_stride, c_stride);
  }
  a += r * a_stride;
  c += r * c_stride;
  if (rows - r == 3) multiply<3, W>(a, a_stride, b, b_stride, n, c, c_stride);
  if (rows - r == 2) multiply<2, W>(a, a_stride, b, b_stride, n, c, c_stride);
  if (rows - r == 1) multiply<1, W>(a, a_stride, b, b_stride, n, c, c_stride);
}

// c += a b for `rows` rows: a is (rows, n), b (n, columns), columns a multiple of the lanes. Each number is
// one chain of fused multiplications and additions in the order of n, however rows and columns are taken
// together: this is why tiles of any shape give the same bits.
inline void matrix_product(int rows, const float* a, int a_stride, const float* b, int b_stride, int n,
                           float* c, int c_stride, int columns) {
  int j = 0;
  for (; j + kWide * kLanes <= columns; j += kWide * kLanes) {
    multiply_rows<kWide>(rows, a, a_stride, b + j, b_stride, n, c + j, c_stride);
  }
  for (; j < columns; j += kLanes) {
    multiply_rows<1>(rows, a, a_stride, b + j, b_stride, n, c + j, c_stride);
  }
}

// float16 to float32; `to` has room for whole lanes and gets zeros there.
inline void widen(const uint16_t* from, int n, float* to) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load_half(from + i));
  if (i < n) {
    uint16_t rest[kLanes] = {};
    for (int j = i; j < n; ++j) rest[j - i] = from[j];
    store(to + i, load_half(rest));
  }
}

// keys[d][cell] of wide[cell][d], so that a product with 64 cells reads whole lanes; cells from n on are 0.
inline void turn(float* wide, int stride, int n, float* keys) {
  for (int i = n * stride; i < (n + kLanes - 1) / kLanes * kLanes * stride; ++i) wide[i] = 0;
  for (int i = 0; i < tinker::kKeys; i += kLanes) {
    for (int d = 0; d < stride; d += kLanes) {
      float* to = keys + d * tinker::kKeys + i;
      if (i < n) {
        transpose16(wide + i * stride + d, stride, to, tinker::kKeys);
      } else {
        for (int j = 0; j < kLanes; ++j) store(to + j * tinker::kKeys, all(0.0f));
      }
    }
  }
}

inline float larger(float a, float b) { return a > b ? a : b; }

inline int whole_lanes(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

// A tile of rows at work. The arrays are in scratch memory; `width` is a size in whole lanes.
struct Tile {
  int n_rows, key_size, key_width, value_size, value_width;
  float* queries;                // (rows, key_size), scaled
  float* keys;                   // (key_size, 64)
  float* turning;                // (64, key_width), the keys before they are turned
  float* values;                 // (64, value_width)
  float* sums;                   // (rows, value_width), weighted values so far
  float* weights;                // (rows, 64), products of queries and keys before
  float* masks;                  // (rows, 64)
  float largest[tinker::kRows];  // product of each row so far
  float totals[tinker::kRows];   // of each row's weights so far
};

inline size_t attention_scratch(int key_size, int value_size) {
  const size_t k = whole_lanes(key_size), v = whole_lanes(value_size);
  const size_t n = tinker::kKeys, r = tinker::kRows;
  return r * k + 2 * n * k + n * v + r * v + 2 * r * n;
}

inline Tile tile_in(float* scratch, const tinker::AttentionCells& cells, int n_rows) {
  Tile tile;
  tile.n_rows = n_rows;
  tile.key_size = cells.key_size, tile.key_width = whole_lanes(cells.key_size);
  tile.value_size = cells.value_size, tile.value_width = whole_lanes(cells.value_size);
  tile.queries = scratch;
  tile.keys = tile.queries + tinker::kRows * tile.key_width;
  tile.turning = tile.keys + tinker::kKeys * tile.key_width;
  tile.values = tile.turning + tinker::kKeys * tile.key_width;
  tile.sums = tile.values + tinker::kKeys * tile.value_width;
  tile.weights = tile.sums + tinker::kRows * tile.value_width;
  tile.masks = tile.weights + tinker::kRows * tinker::kKeys;
  return tile;
}

inline void read_queries(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows,
                         Tile& tile) {
  const float scale = cells.soft_cap != 0 ? cells.scale / cells.soft_cap : cells.scale;
  for (int r = 0; r < tile.n_rows; ++r) {
    float* query = tile.queries + r * tile.key_size;
    for (int d = 0; d < tile.key_size; ++d) query[d] = rows[r].query[d] * scale;
    tile.largest[r] = kNegativeInfinity;
    tile.totals[r] = 0;
  }
  for (int i = 0; i < tile.n_rows * tile.value_width; ++i) tile.sums[i] = 0;
}

// The mask of a block's cells for one row, in float32; cells beyond the cache are masked.
inline void read_mask(const tinker::AttentionRow& row, int64_t first, int n, float* mask) {
  for (int i = 0; i < tinker::kKeys; ++i) mask[i] = i < n ? 0.0f : kNegativeInfinity;
  if (!row.mask) return;
  if (n == tinker::kKeys) {
    const Lanes slope = all(row.slope);
    for (int i = 0; i < n; i += kLanes) store(mask + i, load_half(row.mask + first + i) * slope);
  } else {
    float wide[tinker::kKeys];
    widen(row.mask + first, n, wide);
    for (int i = 0; i < n; ++i) mask[i] = wide[i] * row.slope;
  }
}

// One past the last cell of a block that is not masked, 0 if all are.
inline int n_unmasked(const float* mask) {
  const Lanes least = all(std::numeric_limits<float>::lowest());
  for (int i = tinker::kKeys - kLanes; i >= 0; i -= kLanes) {
    unsigned seen = bits(at_least(load(mask + i), least));
    if (!seen) continue;
    int n = i;
    for (; seen; seen >>= 1) ++n;
    return n;
  }
  return 0;
}

// All rows' masks of a block; returns one past the last cell that any of them sees.
inline int read_masks(const tinker::AttentionRow* rows, int64_t first, int n_cells, Tile& tile) {
  int n = 0;
  for (int r = 0; r < tile.n_rows; ++r) {
    float* mask = tile.masks + r * tinker::kKeys;
    if (r && rows[r].mask == rows[r - 1].mask && rows[r].slope == rows[r - 1].slope) {
      for (int i = 0; i < tinker::kKeys; i += kLanes) store(mask + i, load(mask - tinker::kKeys + i));
      continue;
    }
    read_mask(rows[r], first, n_cells, mask);
    const int seen = n_unmasked(mask);
    n = seen > n ? seen : n;
  }
  return n;
}

inline void read_cells(const tinker::AttentionCells& cells, int64_t first, int n, Tile& tile) {
  for (int j = 0; j < n; ++j) {
    const size_t cell = static_cast<size_t>(first + j);
    widen(reinterpret_cast<const uint16_t*>(cells.keys + cell * cells.key_stride), tile.key_size,
          tile.turning + j * tile.key_width);
    widen(reinterpret_cast<const uint16_t*>(cells.values + cell * cells.value_stride), tile.value_size,
          tile.values + j * tile.value_width);
  }
  turn(tile.turning, tile.key_width, n, tile.keys);
}

// Adds the mask to a row's products with a block; returns the largest.
inline float mask_products(float* products, const float* mask, int n, float soft_cap) {
  if (soft_cap != 0) {
    for (int i = 0; i < n; ++i) products[i] = soft_cap * tanhf(products[i]);
  }
  Lanes most = all(kNegativeInfinity);
  for (int i = 0; i < tinker::kKeys; i += kLanes) {
    const Lanes product = load(products + i) + load(mask + i);
    store(products + i, product);
    most = max(product, most);
  }
  return maximum(most);
}

// exp(difference), as the weights are computed.
inline float exp_of(float difference) {
  float lanes[kLanes];
  store(lanes, exp2(all(difference * tinker::kLog2E)));
  return lanes[0];
}

// Turns row r's masked products into weights exp(product - largest). Where this block has a larger product
// than those before, the row's sums and total so far are made relative to it first.
inline void weigh(Tile& tile, int r, float most) {
  float* row = tile.weights + r * tinker::kKeys;
  const float before = tile.largest[r], now = larger(before, most);
  if (now == kNegativeInfinity) {  // nothing seen yet
    for (int i = 0; i < tinker::kKeys; i += kLanes) store(row + i, all(0.0f));
    return;
  }
  Lanes total = all(0.0f);
  for (int i = 0; i < tinker::kKeys; i += kLanes) {
    const Lanes w = weight(row + i, all(now), all(tinker::kLog2E));
    store(row + i, w);
    total = total + w;
  }
  if (now != before) {
    const float factor = exp_of(before - now);
    float* sums = tile.sums + r * tile.value_width;
    for (int i = 0; i < tile.value_width; i += kLanes) store(sums + i, load(sums + i) * all(factor));
    tile.totals[r] *= factor;
    tile.largest[r] = now;
  }
  tile.totals[r] += sum(total);
}

// The output of row r, once all cells were seen.
inline void finish(Tile& tile, int r, const tinker::AttentionRow& row) {
  float factor = 1, total = tile.totals[r];
  if (row.sink) {
    const float now = larger(tile.largest[r], *row.sink);
    factor = exp_of(tile.largest[r] - now);
    total = total * factor + exp_of(*row.sink - now);
  }
  factor = total == 0 ? 0 : factor / total;
  const float* sums = tile.sums + r * tile.value_width;
  for (int d = 0; d < tile.value_size; ++d) row.output[d] = sums[d] * factor + 0.0f;
}

// Attention of a tile of rows; `scratch` has room for attention_scratch() floats.
void attend(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows,
            float* scratch) {
  constexpr int n_keys = tinker::kKeys;
  Tile tile = tile_in(scratch, cells, n_rows);
  read_queries(cells, rows, tile);
  for (int64_t first = 0; first < cells.n_cells; first += n_keys) {
    const int64_t left = cells.n_cells - first;
    // 1. Which cells of the block any row sees. Blocks that none sees are not read: padding, cells beyond
    // the end of a sequence, and what lies behind a sliding window.
    const int n = read_masks(rows, first, static_cast<int>(left < n_keys ? left : n_keys), tile);
    if (!n) continue;
    // 2. Keys and values to float32, once for all rows.
    read_cells(cells, first, n, tile);
    // 3. Products of queries and keys, in place of the weights.
    for (int i = 0; i < n_rows * n_keys; i += kLanes) store(tile.weights + i, all(0.0f));
    matrix_product(n_rows, tile.queries, tile.key_size, tile.keys, n_keys, tile.key_size, tile.weights,
                   n_keys, n_keys);
    // 4. Weights of the products.
    for (int r = 0; r < n_rows; ++r) {
      float* products = tile.weights + r * n_keys;
      weigh(tile, r, mask_products(products, tile.masks + r * n_keys, n, cells.soft_cap));
    }
    // 5. Weighted values, added to those of the blocks before.
    matrix_product(n_rows, tile.weights, n_keys, tile.values, tile.value_width, n, tile.sums,
                   tile.value_width, tile.value_width);
  }
  // 6. Divided by the total of the weights.
  for (int r = 0; r < n_rows; ++r) finish(tile, r, rows[r]);
}
