// Attention over `Lanes` (see block_kernels.hpp, which has exp2) and load_half, sixteen float16 numbers.
// Softmax is taken on the way, with the largest product so far taken out (Milakov and Gimelshein, 2018; Dao
// et al., "FlashAttention", 2022). A row's numbers do not depend on the rows beside it: masked cells have
// weight 0, and adding 0 times a finite number changes nothing.

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

// c += a b for `rows` rows: a is (rows, n), b (n, columns), columns a multiple of the lanes. Each number
// is one chain of fused multiplications and additions, however rows and columns are taken together.
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

// keys[d][cell] of wide[cell][d]; cells from n on are 0.
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

inline size_t attention_scratch(int key_size, int value_size) {
  const size_t k = key_size, v = whole_lanes(value_size), n = tinker::kKeys, r = tinker::kRows;
  const size_t wide = whole_lanes(key_size);
  return r * k + 2 * n * wide + n * v + r * v + 2 * r * n;
}

// `scratch` has room for attention_scratch() floats.
void attend(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows,
            float* scratch) {
  const int k_size = cells.key_size, v_size = cells.value_size, v_wide = whole_lanes(v_size);
  constexpr int n_keys = tinker::kKeys;
  float* queries = scratch;                          // (rows, key_size)
  float* keys = queries + tinker::kRows * k_size;    // (key_size, 64)
  float* wide = keys + n_keys * whole_lanes(k_size);    // (64, key_size) before they are turned
  float* values = wide + n_keys * whole_lanes(k_size);  // (64, value_size)
  float* sums = values + n_keys * v_wide;            // (rows, value_size)
  float* weights = sums + tinker::kRows * v_wide;    // (rows, 64)
  float* masks = weights + tinker::kRows * n_keys;   // (rows, 64)
  float largest[tinker::kRows], totals[tinker::kRows];

  const float scale = cells.soft_cap != 0 ? cells.scale / cells.soft_cap : cells.scale;
  for (int r = 0; r < n_rows; ++r) {
    for (int d = 0; d < k_size; ++d) queries[r * k_size + d] = rows[r].query[d] * scale;
    largest[r] = kNegativeInfinity;
    totals[r] = 0;
  }
  for (int i = 0; i < n_rows * v_wide; ++i) sums[i] = 0;

  for (int64_t first = 0; first < cells.n_cells; first += n_keys) {
    const int there = static_cast<int>(
        cells.n_cells - first < n_keys ? cells.n_cells - first : static_cast<int64_t>(n_keys));
    int n = 0;
    for (int r = 0; r < n_rows; ++r) {
      float* mask = masks + r * n_keys;
      if (r && rows[r].mask == rows[r - 1].mask && rows[r].slope == rows[r - 1].slope) {
        for (int i = 0; i < n_keys; i += kLanes) store(mask + i, load(mask - n_keys + i));
        continue;
      }
      read_mask(rows[r], first, there, mask);
      const int seen = n_unmasked(mask);
      n = seen > n ? seen : n;
    }
    if (!n) continue;

    for (int j = 0; j < n; ++j) {
      const size_t cell = static_cast<size_t>(first + j);
      widen(reinterpret_cast<const uint16_t*>(cells.keys + cell * cells.key_stride), k_size,
            wide + j * whole_lanes(k_size));
      widen(reinterpret_cast<const uint16_t*>(cells.values + cell * cells.value_stride), v_size,
            values + j * v_wide);
    }
    turn(wide, whole_lanes(k_size), n, keys);

    for (int i = 0; i < n_rows * n_keys; i += kLanes) store(weights + i, all(0.0f));
    matrix_product(n_rows, queries, k_size, keys, n_keys, k_size, weights, n_keys, n_keys);

    for (int r = 0; r < n_rows; ++r) {
      float* row = weights + r * n_keys;
      if (cells.soft_cap != 0) {
        for (int i = 0; i < n; ++i) row[i] = cells.soft_cap * tanhf(row[i]);
      }
      Lanes most = all(kNegativeInfinity);
      for (int i = 0; i < n_keys; i += kLanes) {
        const Lanes product = load(row + i) + load(masks + r * n_keys + i);
        store(row + i, product);
        most = max(product, most);
      }
      const float before = largest[r], now = larger(before, maximum(most));
      if (now == kNegativeInfinity) {
        for (int i = 0; i < n_keys; i += kLanes) store(row + i, all(0.0f));
        continue;
      }
      Lanes total = all(0.0f);
      for (int i = 0; i < n_keys; i += kLanes) {
        const Lanes w = weight(row + i, all(now), all(tinker::kLog2E));
        store(row + i, w);
        total = total + w;
      }
      if (now != before) {
        float factor[kLanes];
        store(factor, exp2(all((before - now) * tinker::kLog2E)));
        totals[r] *= factor[0];
        for (int i = 0; i < v_wide; i += kLanes) {
          store(sums + r * v_wide + i, load(sums + r * v_wide + i) * all(factor[0]));
        }
        largest[r] = now;
      }
      totals[r] += sum(total);
    }
    matrix_product(n_rows, weights, n_keys, values, v_wide, n, sums, v_wide, v_wide);
  }

  for (int r = 0; r < n_rows; ++r) {
    float factor = 1;
    if (rows[r].sink) {
      const float sink = *rows[r].sink, now = larger(largest[r], sink);
      float both[2 * kLanes];
      store(both, exp2(all((largest[r] - now) * tinker::kLog2E)));
      store(both + kLanes, exp2(all((sink - now) * tinker::kLog2E)));
      factor = both[0];
      totals[r] = totals[r] * factor + both[kLanes];
    }
    factor = totals[r] == 0 ? 0 : factor / totals[r];
    for (int d = 0; d < v_size; ++d) rows[r].output[d] = sums[r * v_wide + d] * factor + 0.0f;
  }
}
