// Attention over `Lanes` (see block_kernels.hpp, which has exp2) and load_half, sixteen float16 numbers.
//
// Rows of queries that look at the same cells form a tile. A tile goes through the cells once, 64 at a
// time, and keeps for each row the largest product so far, the total of the weights and the weighted
// values, both relative to that largest product. So softmax needs no second pass (Milakov and Gimelshein,
// 2018; Dao et al., "FlashAttention", 2022).
//
// A row's numbers do not depend on the rows beside it. Rows share the loads of keys and values and nothing
// else. Masked cells have weight 0, and adding 0 times a finite number changes nothing. So where a row sees
// some cells of a block, all of them can be computed; where it sees none, none need be.

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

// What a row has of some cells: the weighted values summed, and behind them the largest product and the total
// of the weights. Sums and total are relative to the largest product.
struct Sums {
  float* values;
  float& largest;
  float& total;

  Sums(float* at, int width) : values(at), largest(at[width]), total(at[width + 1]) {}

  void clear(int width) {
    for (int i = 0; i < width; ++i) values[i] = 0;
    largest = kNegativeInfinity;
    total = 0;
  }
};

inline size_t part_size(int value_size) { return whole_lanes(value_size) + kLanes; }

// A tile of rows at work. The arrays are in scratch memory; `width` is a size in whole lanes.
struct Tile {
  int n_rows, key_size, key_width, value_size, value_width, stride;
  float* queries;                    // (rows, key_size), scaled
  float* keys;                       // (key_size, 64)
  float* turning;                    // (64, key_width), the keys before they are turned
  float* values;                     // (64, value_width)
  float* part;                       // (rows, stride), sums of a part
  float* whole;                      // (rows, stride), sums of the parts so far
  float* weights;                    // (rows, 64), products of queries and keys before
  float* masks;                      // (rows, 64)
  const float* mask[tinker::kRows];  // of each row in a block; null where it sees none of the cells

  Sums part_of(int r) { return {part + r * stride, value_width}; }
  Sums whole_of(int r) { return {whole + r * stride, value_width}; }
};

inline size_t attention_scratch(int key_size, int value_size) {
  const size_t k = whole_lanes(key_size), v = whole_lanes(value_size);
  const size_t n = tinker::kKeys, r = tinker::kRows;
  return r * k + 2 * n * k + n * v + 2 * r * part_size(value_size) + 2 * r * n;
}

inline Tile tile_in(float* scratch, const tinker::AttentionCells& cells, int n_rows) {
  Tile tile;
  tile.n_rows = n_rows;
  tile.key_size = cells.key_size, tile.key_width = whole_lanes(cells.key_size);
  tile.value_size = cells.value_size, tile.value_width = whole_lanes(cells.value_size);
  tile.stride = static_cast<int>(part_size(cells.value_size));
  tile.queries = scratch;
  tile.keys = tile.queries + tinker::kRows * tile.key_width;
  tile.turning = tile.keys + tinker::kKeys * tile.key_width;
  tile.values = tile.turning + tinker::kKeys * tile.key_width;
  tile.part = tile.values + tinker::kKeys * tile.value_width;
  tile.whole = tile.part + tinker::kRows * tile.stride;
  tile.weights = tile.whole + tinker::kRows * tile.stride;
  tile.masks = tile.weights + tinker::kRows * tinker::kKeys;
  return tile;
}

inline void read_queries(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows,
                         Tile& tile) {
  const float scale = cells.soft_cap != 0 ? cells.scale / cells.soft_cap : cells.scale;
  for (int r = 0; r < tile.n_rows; ++r) {
    float* query = tile.queries + r * tile.key_size;
    for (int d = 0; d < tile.key_size; ++d) query[d] = rows[r].query[d] * scale;
  }
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

// Whether 64 cells are masked for a row, as those of other sequences are. Most blocks of a shared cache are.
inline bool are_masked(const tinker::AttentionRow& row, int64_t first) {
  constexpr uint64_t infinities = 0xfc00fc00fc00fc00;  // four times -infinity in float16
  uint64_t words[tinker::kKeys / 4], others = 0;
  memcpy(words, row.mask + first, sizeof words);
  for (uint64_t word : words) others |= word ^ infinities;
  return others == 0;
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

// All rows' masks of a block; returns one past the last cell that any of them sees. Heads of one token are
// neighbours, and share a mask.
inline int read_masks(const tinker::AttentionRow* rows, int64_t first, int n_cells, Tile& tile) {
  int n = 0;
  for (int r = 0; r < tile.n_rows; ++r) {
    if (r && rows[r].mask == rows[r - 1].mask && rows[r].slope == rows[r - 1].slope) {
      tile.mask[r] = tile.mask[r - 1];
      continue;
    }
    tile.mask[r] = nullptr;
    if (n_cells == tinker::kKeys && rows[r].mask && are_masked(rows[r], first)) continue;
    float* mask = tile.masks + r * tinker::kKeys;
    read_mask(rows[r], first, n_cells, mask);
    const int seen = n_unmasked(mask);
    if (seen) tile.mask[r] = mask;
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

// Turns a row's masked products into weights exp(product - largest). Where this block has a larger product
// than those before, the row's sums so far are made relative to it first.
inline void weigh(float* row, Sums sums, int width, float most) {
  const float before = sums.largest, now = larger(before, most);
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
    for (int i = 0; i < width; i += kLanes) store(sums.values + i, load(sums.values + i) * all(factor));
    sums.total *= factor;
    sums.largest = now;
  }
  sums.total += sum(total);
}

// Adds the sums of a part to those of the parts before it.
inline void join(const Sums& part, Sums whole, int width) {
  if (part.largest == kNegativeInfinity) return;  // no cell of it was seen
  const float now = larger(whole.largest, part.largest);
  const float old = exp_of(whole.largest - now), fresh = exp_of(part.largest - now);
  for (int i = 0; i < width; i += kLanes) {
    const Lanes before = load(whole.values + i) * all(old);
    store(whole.values + i, fma(load(part.values + i), all(fresh), before));
  }
  whole.total = whole.total * old + part.total * fresh;
  whole.largest = now;
}

// The output of a row, once all cells were seen.
inline void finish(const Sums& whole, int value_size, const tinker::AttentionRow& row) {
  float factor = 1, total = whole.total;
  if (row.sink) {
    const float now = larger(whole.largest, *row.sink);
    factor = exp_of(whole.largest - now);
    total = total * factor + exp_of(*row.sink - now);
  }
  factor = total == 0 ? 0 : factor / total;
  for (int d = 0; d < value_size; ++d) row.output[d] = whole.values[d] * factor + 0.0f;
}

// Products, weights and weighted values of a block for neighbouring rows that see some of it.
inline void attend_block(const tinker::AttentionCells& cells, int first_row, int last_row, int n,
                         Tile& tile) {
  constexpr int n_keys = tinker::kKeys;
  const int rows = last_row - first_row;
  float* weights = tile.weights + first_row * n_keys;
  for (int i = 0; i < rows * n_keys; i += kLanes) store(weights + i, all(0.0f));
  matrix_product(rows, tile.queries + first_row * tile.key_size, tile.key_size, tile.keys, n_keys,
                 tile.key_size, weights, n_keys, n_keys);
  for (int r = first_row; r < last_row; ++r) {
    float* products = tile.weights + r * n_keys;
    const float most = mask_products(products, tile.mask[r], n, cells.soft_cap);
    weigh(products, tile.part_of(r), tile.value_width, most);
  }
  matrix_product(rows, weights, n_keys, tile.values, tile.value_width, n,
                 tile.part + first_row * tile.stride, tile.stride, tile.value_width);
}

// The sums of a part of the cells, in tile.part.
inline void attend_cells(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows,
                         int64_t part, Tile& tile) {
  constexpr int n_keys = tinker::kKeys;
  for (int r = 0; r < tile.n_rows; ++r) tile.part_of(r).clear(tile.value_width);
  int64_t end = (part + 1) * tinker::kPart;
  if (end > cells.n_cells) end = cells.n_cells;
  for (int64_t first = part * tinker::kPart; first < end; first += n_keys) {
    // 1. Which cells of the block any row sees. Blocks that none sees are not read: padding, other
    // sequences' cells, and what lies behind a sliding window.
    const int n = read_masks(rows, first, static_cast<int>(end - first < n_keys ? end - first : n_keys), tile);
    if (!n) continue;
    // 2. Keys and values to float32, once for all rows.
    read_cells(cells, first, n, tile);
    // 3. What the rows that see some of it make of it.
    for (int r = 0; r < tile.n_rows; ++r) {
      if (!tile.mask[r]) continue;
      const int begin = r;
      while (r < tile.n_rows && tile.mask[r]) ++r;
      attend_block(cells, begin, r, n, tile);
    }
  }
}

inline int n_parts_of(const tinker::AttentionCells& cells) {
  return static_cast<int>((cells.n_cells + tinker::kPart - 1) / tinker::kPart);
}

// Attention of a tile of rows; `scratch` has room for attention_scratch() floats.
void attend(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows,
            float* scratch) {
  Tile tile = tile_in(scratch, cells, n_rows);
  read_queries(cells, rows, tile);
  for (int r = 0; r < n_rows; ++r) tile.whole_of(r).clear(tile.value_width);
  for (int part = 0; part < n_parts_of(cells); ++part) {
    attend_cells(cells, rows, part, tile);
    for (int r = 0; r < n_rows; ++r) join(tile.part_of(r), tile.whole_of(r), tile.value_width);
  }
  for (int r = 0; r < n_rows; ++r) finish(tile.whole_of(r), tile.value_size, rows[r]);
}

// One part of it, to `sums`: (rows, part_size).
void attend_part(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows,
                 int part, float* scratch, float* sums) {
  Tile tile = tile_in(scratch, cells, n_rows);
  tile.part = sums;
  read_queries(cells, rows, tile);
  attend_cells(cells, rows, part, tile);
}

// The outputs, from `sums` of all parts: (parts, rows, part_size). The first part is overwritten.
void join_parts(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows,
                int n_parts, float* sums) {
  const int width = whole_lanes(cells.value_size);
  const size_t stride = part_size(cells.value_size);
  for (int r = 0; r < n_rows; ++r) {
    const Sums whole(sums + r * stride, width);
    for (int part = 1; part < n_parts; ++part) {
      join(Sums(sums + (static_cast<size_t>(part) * n_rows + r) * stride, width), whole, width);
    }
    finish(whole, cells.value_size, rows[r]);
  }
}
