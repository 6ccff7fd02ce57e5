// Products with plain weights over `Lanes` and `Strip`, as many of the sixteen lanes as a register has (see
// product.hpp for the order of the sums, and weight_kernels.hpp for the types of weights).
//
// Few rows: weights are read in registers, since that is what takes the time. More rows: 48 columns of 512
// weights are unpacked to a panel once, and small tiles of rows and columns are summed in registers.

// Weights first .. first + n of a row, to float32, with zeros up to whole lanes. `first` is a multiple of 512.
template <class Type>
void unpack(const char* row, int64_t first, int n, float* to) {
  const auto* block = reinterpret_cast<const uint8_t*>(row) + first / Type::kSize * Type::kBytes;
  int i = 0;
  for (; i + Type::kSize <= n; i += Type::kSize, block += Type::kBytes) {
    for (int j = 0; j < Type::kSize; j += kLanes) store(to + i + j, Type::lanes(block, j / kLanes));
  }
  if (i < n) {  // of plain numbers only
    uint8_t rest[Type::kBytes] = {};
    memcpy(rest, block, static_cast<size_t>(n - i) * (Type::kBytes / Type::kSize));
    store(to + i, Type::lanes(rest, 0));
  }
}

// The products of R rows with C columns.
template <class Type, int R, int C>
inline void dot_tile(const tinker::Weights& weights, int64_t first, const tinker::ProductRow* rows) {
  const uint8_t* from[C];
  float totals[R * C] = {};
  for (int c = 0; c < C; ++c) {
    from[c] = reinterpret_cast<const uint8_t*>(weights.data + static_cast<size_t>(first + c) * weights.stride);
  }
  for (int64_t k = 0; k < weights.size;) {
    const int64_t end = k + tinker::kSpan < weights.size ? k + tinker::kSpan : weights.size;
    Lanes sums[R][C];
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) sums[r][c] = all(0.0f);
    }
    for (; k < end; k += kLanes) {
      Lanes w[C];
      for (int c = 0; c < C; ++c, from[c - 1] += Type::kBytes) {
        w[c] = Type::lanes(from[c], 0);
        prefetch(from[c] + C * weights.stride);
      }
      for (int r = 0; r < R; ++r) {
        const Lanes x = load(rows[r].input + k);
        for (int c = 0; c < C; ++c) sums[r][c] = fma(x, w[c], sums[r][c]);
      }
    }
    float lanes[R * C][kLanes], of_span[R * C];
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) store(lanes[r * C + c], sums[r][c]);
    }
    sum_each(lanes, of_span);
    for (int i = 0; i < R * C; ++i) totals[i] += of_span[i];
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) rows[r].output[first + c] = totals[r * C + c];
  }
}

template <class Type, int R, int C>
void dot_columns(const tinker::Weights& weights, int64_t first, int n, const tinker::ProductRow* rows) {
  int c = 0;
  for (; c + C <= n; c += C) dot_tile<Type, R, C>(weights, first + c, rows);
  for (; c < n; ++c) dot_tile<Type, R, 1>(weights, first + c, rows);
}

// Products of few rows with n columns; their size is a multiple of the lanes. R rows at a time, then what is left.
template <class Type, int R>
void dot_rows(const tinker::Weights& weights, int64_t first, int n, const tinker::ProductRow* rows, int n_rows) {
  for (; n_rows >= R; rows += R, n_rows -= R) dot_columns<Type, R, columns_beside(R)>(weights, first, n, rows);
  if constexpr (R > 1) {
    if (n_rows) dot_rows<Type, R - 1>(weights, first, n, rows, n_rows);
  }
}

// Plain C++ has no registers for lanes; there the code would only take long to compile.
template <class Type>
constexpr auto dot_of() {
  if constexpr (kFewRows > 0) {
    return dot_rows<Type, kDotRows>;
  } else {
    return nullptr;
  }
}

struct PlainType {
  int32_t type;
  void (*unpack)(const char* row, int64_t first, int n, float* to);
  void (*dot)(const tinker::Weights& weights, int64_t first, int n, const tinker::ProductRow* rows, int n_rows);
};

template <class... Types>
const PlainType* find_plain(int32_t type) {
  static constexpr PlainType table[] = {{Types::kType, unpack<Types>, dot_of<Types>()}...};
  for (const PlainType& entry : table) {
    if (entry.type == type) return &entry;
  }
  return nullptr;
}

// Adds to the outputs of R rows the products of n numbers with C columns of a panel.
template <int R, int C>
inline void multiply_tile(const tinker::ProductRow* rows, int64_t k, const float* panel, int n, int64_t column) {
  float lanes[R * C][kLanes];
  for (int i = 0; i < kLanes; i += kStrip) {
    Strip sums[R][C];
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) sums[r][c] = strip(0.0f);
    }
    for (int j = i; j < n; j += kLanes) {
      Strip w[C];
      for (int c = 0; c < C; ++c) w[c] = load_strip(panel + c * tinker::kSpan + j);
      for (int r = 0; r < R; ++r) {
        const Strip x = load_strip(rows[r].input + k + j);
        for (int c = 0; c < C; ++c) sums[r][c] = fma(x, w[c], sums[r][c]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) store_strip(lanes[r * C + c] + i, sums[r][c]);
    }
  }
  float sums[R * C];
  sum_each(lanes, sums);
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) rows[r].output[column + c] += sums[r * C + c];
  }
}

// The same for all of a panel's columns.
template <int R>
inline void multiply_columns(const tinker::ProductRow* rows, int64_t k, const float* panel, int n, int64_t first,
                             int n_columns) {
  constexpr int C = kPanelTileColumns;
  int c = 0;
  for (; c + C <= n_columns; c += C) multiply_tile<R, C>(rows, k, panel + c * tinker::kSpan, n, first + c);
  for (; c < n_columns; ++c) multiply_tile<R, 1>(rows, k, panel + c * tinker::kSpan, n, first + c);
}

// The same for all rows: R at a time, then what is left of them.
template <int R>
inline void multiply_panel(const tinker::ProductRow* rows, int n_rows, int64_t k, const float* panel, int n,
                           int64_t first, int n_columns) {
  for (; n_rows >= R; rows += R, n_rows -= R) multiply_columns<R>(rows, k, panel, n, first, n_columns);
  if constexpr (R > 1) {
    if (n_rows) multiply_panel<R - 1>(rows, n_rows, k, panel, n, first, n_columns);
  }
}

// The same in blocks of rows and columns that the nearest caches hold.
inline void multiply_blocks(const tinker::ProductRow* rows, int n_rows, int64_t k, const float* panel, int n,
                            int64_t first, int n_columns) {
  for (int r = 0; r < n_rows; r += kBlockRows) {
    const int n_near = n_rows - r < kBlockRows ? n_rows - r : kBlockRows;
    for (int c = 0; c < n_columns; c += kBlockColumns) {
      const int columns = n_columns - c < kBlockColumns ? n_columns - c : kBlockColumns;
      multiply_panel<kPanelTileRows>(rows + r, n_near, k, panel + c * tinker::kSpan, n, first + c, columns);
    }
  }
}

inline void unpack_panel(const tinker::Weights& weights, const PlainType* type, int64_t first, int n_columns,
                         int64_t k, int n, float* panel) {
  for (int c = 0; c < n_columns; ++c, panel += tinker::kSpan) {
    const char* row = weights.data + static_cast<size_t>(first + c) * weights.stride;
    if (type) {
      type->unpack(row, k, n, panel);
    } else {
      weights.to_float(row + static_cast<size_t>(k / tinker::kSpan) * weights.span_stride, panel, n);
    }
  }
}

// Products of rows with n_columns columns from `first` on.
void multiply_rows(const tinker::Weights& weights, int64_t first, int n_columns, const tinker::ProductRow* rows,
                   int n_rows, float* panel) {
  const PlainType* type = find_plain<F32, F16, BF16>(weights.type);
  if (n_rows <= kFewRows && type && weights.size % kLanes == 0) {
    return type->dot(weights, first, n_columns, rows, n_rows);
  }
  panel = tinker::on_line(panel);
  for (int done = 0; done < n_columns; done += tinker::kColumns) {
    const int columns = n_columns - done < tinker::kColumns ? n_columns - done : tinker::kColumns;
    for (int r = 0; r < n_rows; ++r) {
      memset(rows[r].output + first + done, 0, static_cast<size_t>(columns) * sizeof(float));
    }
    for (int64_t k = 0; k < weights.size; k += tinker::kSpan) {
      const int n = static_cast<int>(weights.size - k < tinker::kSpan ? weights.size - k : tinker::kSpan);
      unpack_panel(weights, type, first + done, columns, k, n, panel);
      multiply_blocks(rows, n_rows, k, panel, n, first + done, columns);
    }
  }
}
