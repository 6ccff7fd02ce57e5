// Attention in float32, over `Lanes` (see attention_sums.hpp, and weight_kernels.hpp for the types of keys and values).

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

constexpr int kNearRows = 64;  // whose weights fit the nearest cache

// A tile of rows at work. The arrays are in scratch memory; `width` is a size in whole lanes.
struct Tile {
  int n_rows, key_size, key_width, value_size, value_width, stride;
  float* queries;  // (rows, key_size), scaled
  float* keys;     // (key_size, 64)
  float* turning;  // (64, key_width), the keys before they are turned
  float* values;   // (64, value_width)
  float* part;     // (rows, stride), sums of a part
  float* whole;    // (rows, stride), sums of the parts so far
  float* weights;  // (kNearRows, 64), products of queries and keys before

  Tile(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows, float* scratch)
      : n_rows(n_rows), key_size(cells.key_size), key_width(whole_lanes(key_size)), value_size(cells.value_size),
        value_width(whole_lanes(value_size)), stride(static_cast<int>(part_size(value_size))) {
    queries = scratch;
    keys = queries + tinker::kMostRows * key_width;
    turning = keys + tinker::kKeys * key_width;
    values = turning + tinker::kKeys * key_width;
    part = values + tinker::kKeys * value_width;
    whole = part + tinker::kMostRows * stride;
    weights = whole + tinker::kMostRows * stride;
    const float scale = scale_of_queries(cells);
    for (int r = 0; r < n_rows; ++r) {
      float* query = queries + r * key_size;
      for (int d = 0; d < key_size; ++d) query[d] = rows[r].query[d] * scale;
    }
  }

  Sums part_of(int r) { return {part + r * stride, value_width}; }
  Sums whole_of(int r) { return {whole + r * stride, value_width}; }

  // Products, weights and weighted values of a block for neighbouring rows that see some of the same cells.
  void attend(const RowsOfBlock& at) {
    read(at);
    RowsOfBlock some = at;
    for (; some.first < at.last; some.first = some.last) {
      some.last = some.first + kNearRows < at.last ? some.first + kNearRows : at.last;
      attend_near(some);
    }
  }

 private:
  void attend_near(const RowsOfBlock& at) {
    constexpr int n_keys = tinker::kKeys;
    const int n = at.last - at.first, lane = at.span.first_lane();
    for (int i = 0; i < n * n_keys; i += kLanes) store(weights + i, all(0.0f));
    matrix_product(n, queries + at.first * key_size, key_size, keys + lane, n_keys, key_size, weights + lane, n_keys,
                   at.span.last_lane() - lane);
    weigh_rows(at, weights, *this, [this](const BlockWeights& of_row, int r) {
      for (int i = 0; i < kLanesOfBlock; ++i) store(weights + r * n_keys + i * kLanes, of_row[i]);
    });
    matrix_product(n, weights + at.span.begin, n_keys, values + at.span.begin * value_width, value_width,
                   at.span.end - at.span.begin, part + at.first * stride, stride, value_width);
  }

  // Keys and values of a span, from wherever their cells are. Keys are for whole lanes of positions.
  void read(const RowsOfBlock& at) {
    const int first = at.span.first_lane(), last = at.span.last_lane();
    const tinker::AttentionCells& cells = at.cells;
    read_numbers(cells.key_type, cells.keys, cells.key_stride, at.block, first, last, at.span, key_size, turning);
    turn(turning, key_width, first, last, keys);
    read_numbers(cells.value_type, cells.values, cells.value_stride, at.block, at.span.begin, at.span.end, at.span,
                 value_size, values);
  }
};

size_t attention_scratch(int key_size, int value_size) {
  const size_t k = whole_lanes(key_size), v = whole_lanes(value_size);
  const size_t n = tinker::kKeys, r = tinker::kMostRows;
  return r * k + 2 * n * k + n * v + 2 * r * part_size(value_size) + kNearRows * n;
}

// Attention of a tile of rows; `scratch` has room for attention_scratch() floats.
void attend(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows, float* scratch) {
  attend_with(Tile(cells, rows, n_rows, scratch), cells, rows);
}

void attend_part(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows, int part,
                 float* scratch, float* sums) {
  attend_part_with(Tile(cells, rows, n_rows, scratch), cells, rows, part, sums);
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
