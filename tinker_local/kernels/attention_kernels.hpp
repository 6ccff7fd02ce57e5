// Attention over `Lanes` (see block_kernels.hpp, which has exp2, and weight_kernels.hpp for the types of keys and
// values).
//
// Rows of queries form a tile. A tile goes through the positions once, 64 at a time, and keeps for each row
// the largest product so far, the total of the weights and the weighted values, both relative to that largest
// product. So softmax needs no second pass (Milakov and Gimelshein, 2018; Dao et al., "FlashAttention",
// 2022). Keys and values are fetched from their cells for all neighbouring rows that see the same ones.
//
// A row's numbers do not depend on the rows beside it. Rows share the loads of keys and values and nothing
// else. What a row does not see has weight 0, and adding 0 times a finite number changes nothing. So where a
// row sees some cells of a block, all of them can be computed; where it sees none, none need be.

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

// keys[d][position] of wide[position][d], so that a product with many positions reads whole lanes.
inline void turn(const float* wide, int stride, int begin, int end, float* keys) {
  for (int i = begin; i < end; i += kLanes) {
    for (int d = 0; d < stride; d += kLanes) {
      transpose16(wide + i * stride + d, stride, keys + d * tinker::kKeys + i, tinker::kKeys);
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

// Some positions of a block: from `begin` to before `end`.
struct Span {
  int begin, end;

  // In whole lanes.
  int first_lane() const { return begin / kLanes * kLanes; }
  int last_lane() const { return whole_lanes(end); }
};

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
  float* mask;                       // (64,)

  Sums part_of(int r) { return {part + r * stride, value_width}; }
  Sums whole_of(int r) { return {whole + r * stride, value_width}; }
};

inline size_t attention_scratch(int key_size, int value_size) {
  const size_t k = whole_lanes(key_size), v = whole_lanes(value_size);
  const size_t n = tinker::kKeys, r = tinker::kRows;
  return r * k + 2 * n * k + n * v + 2 * r * part_size(value_size) + r * n + n;
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
  tile.mask = tile.weights + tinker::kRows * tinker::kKeys;
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

// Which positions of a block a row sees, if all of those between are held.
inline Span span_of(const tinker::SeenCells& seen, int64_t block) {
  const int64_t start = block * tinker::kKeys, stop = seen.last + 1 - start;
  return {static_cast<int>(seen.first > start ? seen.first - start : 0),
          static_cast<int>(stop < tinker::kKeys ? stop : tinker::kKeys)};
}

// The mask of a block for one row in float32; null where all of it is seen and plain.
inline const float* read_mask(const tinker::AttentionRow& row, const tinker::CellBlock& block, Span span,
                              float* mask) {
  constexpr int n = tinker::kKeys;
  if (row.seen->is_plain) {
    if (block.n_cells == n && span.begin == 0 && span.end == n) return nullptr;
    for (int i = 0; i < n; ++i) {
      const bool is_seen = (i >= span.begin) & (i < span.end) & (block.cells[i] >= 0);
      mask[i] = is_seen ? 0.0f : kNegativeInfinity;
    }
    return mask;
  }
  uint16_t halves[n];
  for (int i = 0; i < n; ++i) halves[i] = block.cells[i] < 0 ? 0 : row.mask[block.cells[i]];
  unpack<F16>(reinterpret_cast<const char*>(halves), 0, n, mask);
  for (int i = 0; i < n; ++i) {
    const bool is_seen = i >= span.begin && i < span.end && block.cells[i] >= 0;
    mask[i] = is_seen ? mask[i] * row.slope : kNegativeInfinity;
  }
  return mask;
}

// A cell's numbers in float32; zeros where there is no cell.
template <class Type>
inline void read_cell(const char* cells, size_t stride, int32_t cell, int size, float* to) {
  if (cell >= 0) {
    unpack<Type>(cells + static_cast<size_t>(cell) * stride, 0, size, to);
  } else {
    for (int i = 0; i < size; i += kLanes) store(to + i, all(0.0f));
  }
}

// Those of a block's cells from `begin` to before `end`; none outside of `span`.
template <class Type>
inline void read_numbers_of(const char* cells, size_t stride, const tinker::CellBlock& block, int begin,
                            int end, Span span, int size, float* to) {
  for (int i = begin; i < end; ++i) {
    const bool is_there = i >= span.begin && i < span.end;
    read_cell<Type>(cells, stride, is_there ? block.cells[i] : tinker::CellBlock::kNone, size,
                    to + i * whole_lanes(size));
  }
}

inline void read_numbers(int32_t type, const char* cells, size_t stride, const tinker::CellBlock& block,
                         int begin, int end, Span span, int size, float* to) {
  const auto read = type == F32::kType    ? &read_numbers_of<F32>
                    : type == Q8_0::kType ? &read_numbers_of<Q8_0>
                                          : &read_numbers_of<F16>;
  read(cells, stride, block, begin, end, span, size, to);
}

// Keys and values of a span, from wherever their cells are. Keys are for whole lanes of positions.
inline void read_cells(const tinker::AttentionCells& cells, const tinker::CellBlock& block, Span span,
                       Tile& tile) {
  read_numbers(cells.key_type, cells.keys, cells.key_stride, block, span.first_lane(), span.last_lane(), span,
               tile.key_size, tile.turning);
  turn(tile.turning, tile.key_width, span.first_lane(), span.last_lane(), tile.keys);
  read_numbers(cells.value_type, cells.values, cells.value_stride, block, span.begin, span.end, span,
               tile.value_size, tile.values);
}

// Adds the mask to a row's products with a block; returns the largest.
inline float mask_products(float* products, const float* mask, Span span, float soft_cap) {
  if (soft_cap != 0) {
    for (int i = span.begin; i < span.end; ++i) products[i] = soft_cap * tanhf(products[i]);
  }
  Lanes most = all(kNegativeInfinity);
  for (int i = 0; i < tinker::kKeys; i += kLanes) {
    Lanes product = load(products + i);
    if (mask) store(products + i, product = product + load(mask + i));
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

// Products, weights and weighted values of a block for neighbouring rows that see some of the same cells.
inline void attend_block(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows,
                         const tinker::CellBlock& block, int64_t number, int first_row, int last_row,
                         Tile& tile) {
  constexpr int n_keys = tinker::kKeys;
  // 1. Keys and values to float32, once for all rows.
  Span span = span_of(*rows[first_row].seen, number);
  for (int r = first_row + 1; r < last_row; ++r) {
    const Span other = span_of(*rows[r].seen, number);
    span = {other.begin < span.begin ? other.begin : span.begin, other.end > span.end ? other.end : span.end};
  }
  read_cells(cells, block, span, tile);
  // 2. Products of queries and keys.
  const int n_rows = last_row - first_row, lane = span.first_lane();
  float* weights = tile.weights + first_row * n_keys;
  for (int i = 0; i < n_rows * n_keys; i += kLanes) store(weights + i, all(0.0f));
  matrix_product(n_rows, tile.queries + first_row * tile.key_size, tile.key_size, tile.keys + lane, n_keys,
                 tile.key_size, weights + lane, n_keys, span.last_lane() - lane);
  // 3. Weights. Heads of one token are neighbours, and share a mask.
  const float* mask = nullptr;
  for (int r = first_row; r < last_row; ++r) {
    if (r == first_row || rows[r].seen != rows[r - 1].seen || rows[r].slope != rows[r - 1].slope) {
      mask = read_mask(rows[r], block, span_of(*rows[r].seen, number), tile.mask);
    }
    float* products = tile.weights + r * n_keys;
    const float most = mask_products(products, mask, span, cells.soft_cap);
    weigh(products, tile.part_of(r), tile.value_width, most);
  }
  // 4. Weighted values.
  matrix_product(n_rows, weights + span.begin, n_keys, tile.values + span.begin * tile.value_width,
                 tile.value_width, span.end - span.begin, tile.part + first_row * tile.stride, tile.stride,
                 tile.value_width);
}

// The sums of a part of the positions, in tile.part.
inline void attend_positions(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows,
                             int64_t part, Tile& tile) {
  for (int r = 0; r < tile.n_rows; ++r) tile.part_of(r).clear(tile.value_width);
  constexpr int n_blocks = tinker::kPart / tinker::kKeys;
  for (int64_t number = part * n_blocks; number < (part + 1) * n_blocks; ++number) {
    for (int r = 0, first; r < tile.n_rows;) {
      const tinker::CellBlock* block = rows[first = r].seen->block(number);
      do ++r;
      while (r < tile.n_rows && rows[r].seen->block(number) == block);
      if (block) attend_block(cells, rows, *block, number, first, r, tile);
    }
  }
}

// Attention of a tile of rows; `scratch` has room for attention_scratch() floats.
void attend(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows,
            float* scratch) {
  Tile tile = tile_in(scratch, cells, n_rows);
  read_queries(cells, rows, tile);
  int32_t first = rows[0].seen->first, last = -1;
  for (int r = 0; r < n_rows; ++r) {
    tile.whole_of(r).clear(tile.value_width);
    if (rows[r].seen->first < first) first = rows[r].seen->first;
    if (rows[r].seen->last > last) last = rows[r].seen->last;
  }
  for (int part = first / tinker::kPart; part * tinker::kPart <= last; ++part) {
    attend_positions(cells, rows, part, tile);
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
  attend_positions(cells, rows, part, tile);
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
