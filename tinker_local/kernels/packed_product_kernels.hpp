// Products with packed weights (see product.hpp for the order of the sums, and weight_kernels.hpp for the types).
//
// Few rows: four columns at a time, whose integers are widened in registers. More rows: 48 columns of 256 weights
// are unpacked to a panel once, in which neighbouring lanes are neighbouring columns. Tiles of rows and columns
// are summed in registers.
//
// Over `Lanes`; `Strip` of kStrip floats and `Ints`, as many integers; `Shorts`, whose `Products` four columns
// join to `Four` floats. The including file defines them.

// Plain C++ has no registers for tiles, nor for rows together; there they would only take long to compile.
constexpr bool kHasTiles = kTileRows > 0;
constexpr int kRowsTogether = kHasTiles ? 4 : 1;  // of few rows
constexpr int kMostFewRows = 8;                   // up to which columns are widened in registers: measured

// Activations to integers. Sums are exact in float32. Integers are 0 where an activation is no number.
void pack_row(const float* x, int64_t n, int16_t* numbers, tinker::Run* runs) {
  constexpr float largest = 32767, negligible = 1e-30f;
  for (int64_t i = 0; i < n; i += tinker::kRun, ++runs) {
    Lanes a = load(x + i), b = load(x + i + kLanes);
    const Lanes zero = all(0.0f);
    const float most = maximum(max(max(a, zero - a), max(b, zero - b)));
    const float spoiled = sum(fma(a, zero, b * zero));  // NaN if one is no number, else 0
    float by = largest / most;
    runs->scale = most / largest + spoiled;
    if (spoiled != 0 || most < negligible) a = b = zero, by = 1, runs->scale = spoiled;
    a = rounded(a * all(by));
    b = rounded(b * all(by));
    store_shorts(numbers + i, a);
    store_shorts(numbers + i + kLanes, b);
    runs->halves[0] = static_cast<int32_t>(sum(a));
    runs->halves[1] = static_cast<int32_t>(sum(b));
  }
}

// Numbers of a row from k on, a multiple of 256.
template <class Type>
inline const uint8_t* stretch_of(const char* row, int64_t k) {
  return reinterpret_cast<const uint8_t*>(row) + k / Type::kSize * Type::kBytes;
}

// Phases of a type are known when the code is compiled.
#if defined(__clang__)
#define TINKER_UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define TINKER_UNROLLED _Pragma("GCC unroll 4")
#else
#define TINKER_UNROLLED
#endif

inline int runs_of_stretch(int64_t k, int64_t size) {
  const int64_t left = size - k < tinker::kStretch ? size - k : tinker::kStretch;
  return static_cast<int>(left / tinker::kRun);
}

// What a group's activations add up to, those of a whole run or a half of it.
struct GroupSum {
  int32_t whole;
  float scaled;
};

template <class Type>
inline GroupSum sum_of(const tinker::Run& run, int half) {
  const bool is_whole = Type::kGroup == tinker::kRun;
  const int32_t whole = is_whole ? run.halves[0] + run.halves[1] : run.halves[half];
  return {whole, static_cast<float>(whole) * run.scale};
}

// --- few rows ---

// Adds the products of one run of four columns with R rows.
template <class Type, int R>
inline void dot_run(const Numbers (&w)[4], const Scales (&scales)[4], int i, int64_t k, const tinker::PackedRow* rows,
                    Four (&sums)[R]) {
  constexpr bool is_whole = Type::kGroup == tinker::kRun;
  const int low_group = is_whole ? i : 2 * i, high_group = is_whole ? i : 2 * i + 1;
  const auto scale = [&](int g) {
    return set_four(scales[0].scales[g], scales[1].scales[g], scales[2].scales[g], scales[3].scales[g]);
  };
  const auto offset = [&](int g) {
    return set_four(scales[0].offsets[g], scales[1].offsets[g], scales[2].offsets[g], scales[3].offsets[g]);
  };
  const Four low_scale = scale(low_group), high_scale = is_whole ? low_scale : scale(high_group);
  const Four low_offset = Type::kHasOffset ? offset(low_group) : low_scale;
  const Four high_offset = Type::kHasOffset && !is_whole ? offset(high_group) : low_offset;
  for (int r = 0; r < R; ++r) {
    const int16_t* x = rows[r].numbers + k + i * tinker::kRun;
    const tinker::Run& run = rows[r].runs[k / tinker::kRun + i];
    Products low[4], high[4];
    for (int c = 0; c < 4; ++c) low[c] = products(w[c].first, x), high[c] = products(w[c].last, x + 16);
    if constexpr (is_whole) {
      for (int c = 0; c < 4; ++c) low[c] = low[c] + high[c];
    }
    const GroupSum low_sum = sum_of<Type>(run, 0), high_sum = sum_of<Type>(run, 1);
    sums[r] = fma(join(low, Type::kZero * low_sum.whole), low_scale * four(run.scale), sums[r]);
    if constexpr (Type::kHasOffset) sums[r] = fma(low_offset, four(low_sum.scaled), sums[r]);
    if constexpr (!is_whole) {
      sums[r] = fma(join(high, Type::kZero * high_sum.whole), high_scale * four(run.scale), sums[r]);
      if constexpr (Type::kHasOffset) sums[r] = fma(high_offset, four(high_sum.scaled), sums[r]);
    }
  }
}

// The same of a stretch.
template <class Type, int R>
inline void dot_stretch(const uint8_t* const (&stretches)[4], int64_t k, int n_runs, const tinker::PackedRow* rows,
                        Four (&sums)[R]) {
  Scales scales[4];
  for (int c = 0; c < 4; ++c) Type::read_scales(stretches[c], n_runs, scales[c]);
  for (int i = 0; i < n_runs; i += Type::kPhases) {
    TINKER_UNROLLED
    for (int phase = 0; phase < Type::kPhases; ++phase) {
      Numbers w[4];
      for (int c = 0; c < 4; ++c) w[c] = Type::numbers(stretches[c], i / Type::kPhases, phase);
      dot_run<Type, R>(w, scales, i + phase, k, rows, sums);
    }
  }
}

// Columns first .. first + n of which there are at most four; what is left of four is another's once more.
template <class Type, int R>
inline void dot_four(const tinker::Weights& weights, int64_t first, int n, const tinker::PackedRow* rows) {
  const char* columns[4];
  for (int c = 0; c < 4; ++c) columns[c] = weights.data + static_cast<size_t>(first + (c < n ? c : 0)) * weights.stride;
  Four sums[R];
  for (int r = 0; r < R; ++r) sums[r] = four(0.0f);
  for (int64_t k = 0; k < weights.size; k += tinker::kStretch) {
    const uint8_t* stretches[4];
    for (int c = 0; c < 4; ++c) {
      stretches[c] = stretch_of<Type>(columns[c], k);
      for (int i = 0; i < tinker::kStretch / Type::kSize * Type::kBytes; i += 64) {
        prefetch(stretches[c] + 4 * weights.stride + i);
      }
    }
    dot_stretch<Type, R>(stretches, k, runs_of_stretch(k, weights.size), rows, sums);
  }
  for (int r = 0; r < R; ++r) {
    float found[4];
    store_four(found, sums[r]);
    memcpy(rows[r].output + first, found, static_cast<size_t>(n) * sizeof(float));
  }
}

// R rows at a time, then what is left of them.
template <class Type, int R>
inline void dot_rows(const tinker::Weights& weights, int64_t first, int n, const tinker::PackedRow* rows, int n_rows) {
  for (; n_rows >= R; rows += R, n_rows -= R) dot_four<Type, R>(weights, first, n, rows);
  if constexpr (R > 1) {
    if (n_rows) dot_rows<Type, R - 1>(weights, first, n, rows, n_rows);
  }
}

template <class Type>
void dot_packed(const tinker::Weights& weights, int64_t first, int n, const tinker::PackedRow* rows, int n_rows) {
  for (int c = 0; c < n; c += 4) dot_rows<Type, kRowsTogether>(weights, first + c, n - c < 4 ? n - c : 4, rows, n_rows);
}

// --- more rows ---

// 48 columns of a stretch. A pair is two neighbouring integers of a column, in the place of a float.
struct Panel {
  static constexpr int kPairs = tinker::kStretch / 2, kWidth = tinker::kPackedColumns;
  float pairs[kPairs][kWidth];
  float scales[kMostGroups][kWidth];
  float offsets[kMostGroups][kWidth];
};
static_assert(sizeof(Panel) <= tinker::kPanelSize * sizeof(float));

// Columns behind the last are the last one's once more.
template <class Type>
inline void unpack_packed(const tinker::Weights& weights, int64_t first, int n_columns, int64_t k, int n_runs,
                          Panel& panel) {
  constexpr int groups_of_run = tinker::kRun / Type::kGroup;
  const uint8_t* stretches[Panel::kWidth];
  for (int c = 0; c < Panel::kWidth; ++c) {
    const int64_t column = first + (c < n_columns ? c : n_columns - 1);
    stretches[c] = stretch_of<Type>(weights.data + static_cast<size_t>(column) * weights.stride, k);
    Scales scales;
    Type::read_scales(stretches[c], n_runs, scales);
    for (int g = 0; g < n_runs * groups_of_run; ++g) {
      panel.scales[g][c] = scales.scales[g];
      if constexpr (Type::kHasOffset) panel.offsets[g][c] = scales.offsets[g];
    }
  }
  for (int i = 0; i < n_runs; ++i) {
    for (int c = 0; c < Panel::kWidth; c += 16) {
      float rows[16][16];
      for (int j = 0; j < 16; ++j) {
        const Numbers numbers = Type::numbers(stretches[c + j], i / Type::kPhases, i % Type::kPhases);
        store_pairs(rows[j], numbers.first);
        store_pairs(rows[j] + 8, numbers.last);
      }
      transpose16(rows[0], 16, panel.pairs[16 * i] + c, Panel::kWidth);
    }
  }
}

// Adds the products of R rows with V strips of a panel's columns to sums.
template <class Type, int R, int V>
inline void multiply_strips(const tinker::PackedRow* rows, int64_t k, int n_runs, const Panel& panel, int column,
                            float (&sums)[R][V * kStrip]) {
  constexpr int pairs = Type::kGroup / 2, groups_of_run = tinker::kRun / Type::kGroup;
  for (int g = 0; g < n_runs * groups_of_run; ++g) {
    Ints whole[R][V];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) whole[r][v] = no_ints();
    }
    for (int j = 0; j < pairs; ++j) {
      Ints w[V];
      for (int v = 0; v < V; ++v) w[v] = load_pairs(panel.pairs[pairs * g + j] + column + v * kStrip);
      for (int r = 0; r < R; ++r) {
        const Ints x = pair(rows[r].numbers + k + Type::kGroup * g + 2 * j);
        for (int v = 0; v < V; ++v) whole[r][v] = add_products(whole[r][v], w[v], x);
      }
    }
    for (int r = 0; r < R; ++r) {
      const tinker::Run& run = rows[r].runs[k / tinker::kRun + g / groups_of_run];
      const GroupSum sum = sum_of<Type>(run, g % groups_of_run);
      for (int v = 0; v < V; ++v) {
        const int place = column + v * kStrip;
        float* to = sums[r] + v * kStrip;
        const Strip scale = load_strip(panel.scales[g] + place) * strip(run.scale);
        Strip total = fma(to_floats(whole[r][v], Type::kZero * sum.whole), scale, load_strip(to));
        if constexpr (Type::kHasOffset) total = fma(load_strip(panel.offsets[g] + place), strip(sum.scaled), total);
        store_strip(to, total);
      }
    }
  }
}

template <class Type, int R>
inline void multiply_packed_tile(const tinker::PackedRow* rows, int64_t k, int n_runs, const Panel& panel, int64_t first,
                                 int n_columns) {
  constexpr int width = kTileStrips * kStrip;
  for (int c = 0; c < n_columns; c += width) {
    const size_t n_bytes = static_cast<size_t>(n_columns - c < width ? n_columns - c : width) * sizeof(float);
    float sums[R][width] = {};
    for (int r = 0; k && r < R; ++r) memcpy(sums[r], rows[r].output + first + c, n_bytes);
    multiply_strips<Type, R, kTileStrips>(rows, k, n_runs, panel, c, sums);
    for (int r = 0; r < R; ++r) memcpy(rows[r].output + first + c, sums[r], n_bytes);
  }
}

// R rows at a time, then what is left of them, in fewer.
template <class Type, int R>
inline void multiply_packed_panel(const tinker::PackedRow* rows, int n_rows, int64_t k, int n_runs, const Panel& panel,
                                  int64_t first, int n_columns) {
  for (; n_rows >= R; rows += R, n_rows -= R) {
    multiply_packed_tile<Type, R>(rows, k, n_runs, panel, first, n_columns);
  }
  if constexpr (R > 1) {
    if (n_rows) multiply_packed_panel<Type, R / 2>(rows, n_rows, k, n_runs, panel, first, n_columns);
  }
}

template <class Type>
void multiply_by_panels(const tinker::Weights& weights, int64_t first, int n_columns, const tinker::PackedRow* rows,
                        int n_rows, Panel& panel) {
  for (int done = 0; done < n_columns; done += Panel::kWidth) {
    const int columns = n_columns - done < Panel::kWidth ? n_columns - done : Panel::kWidth;
    for (int64_t k = 0; k < weights.size; k += tinker::kStretch) {
      const int n_runs = runs_of_stretch(k, weights.size);
      unpack_packed<Type>(weights, first + done, columns, k, n_runs, panel);
      multiply_packed_panel<Type, kTileRows>(rows, n_rows, k, n_runs, panel, first + done, columns);
    }
  }
}

template <class Type>
void multiply_packed(const tinker::Weights& weights, int64_t first, int n_columns, const tinker::PackedRow* rows,
                     int n_rows, float* memory) {
  if constexpr (kHasTiles) {
    if (n_rows > kMostFewRows) {
      return multiply_by_panels<Type>(weights, first, n_columns, rows, n_rows, *reinterpret_cast<Panel*>(memory));
    }
  }
  dot_packed<Type>(weights, first, n_columns, rows, n_rows);
}

template <class... Types>
tinker::MultiplyPacked find_packed(int32_t type) {
  struct Entry {
    int32_t type;
    tinker::MultiplyPacked multiply;
  };
  static constexpr Entry table[] = {{Types::kType, multiply_packed<Types>}...};
  for (const Entry& entry : table) {
    if (entry.type == type) return entry.multiply;
  }
  return nullptr;
}

// The kernel for a type of packed weights; null if there is none here.
tinker::MultiplyPacked packed_product(int32_t type) {
  return find_packed<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4>(type);
}
