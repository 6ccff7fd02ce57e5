// A stretch of weights whose groups of 32 share a scale, times activations of sixteen bits.
//
// Over `Shorts`, sixteen integers of sixteen bits (see packed_product_kernels.hpp).

// Activations to integers. Sums are exact in float32. Integers are 0 where an activation is no number.
void pack_groups(const float* x, int64_t n, int16_t* numbers, tinker::Run* runs) {
  constexpr float largest = 32767, negligible = 1e-30f;
  for (int64_t i = 0; i < n; i += tinker::kRun, ++runs) {
    Lanes a = load(x + i), b = load(x + i + kLanes);
    const float most = maximum(max(magnitude(a), magnitude(b)));
    const float spoiled = no_number(a, b);
    float by = largest / most;
    runs->scale = most / largest + spoiled;
    if (spoiled != 0 || most < negligible) a = b = all(0.0f), by = 1, runs->scale = spoiled;
    a = rounded(a * all(by));
    b = rounded(b * all(by));
    store_shorts(numbers + i, a);
    store_shorts(numbers + i + kLanes, b);
    runs->sum = static_cast<int32_t>(sum(a + b));
  }
}

// --- few rows ---

// Adds the products of one run of four columns with R rows.
template <class Type, int R>
inline void dot_run(const Numbers (&w)[4], const Scales (&scales)[4], int i, int64_t k, const tinker::PackedRow* rows,
                    Four (&sums)[R]) {
  const auto of_four = [i](const float* a, const float* b, const float* c, const float* d) {
    return set_four(a[i], b[i], c[i], d[i]);
  };
  const Four scale = of_four(scales[0].scales, scales[1].scales, scales[2].scales, scales[3].scales);
  Four offset = scale;
  if constexpr (Type::kHasOffset) {
    offset = of_four(scales[0].offsets, scales[1].offsets, scales[2].offsets, scales[3].offsets);
  }
  for (int r = 0; r < R; ++r) {
    const int16_t* x = rows[r].numbers + k + i * tinker::kRun;
    const tinker::Run& run = rows[r].scales[k / tinker::kRun + i];
    Products whole[4];
    for (int c = 0; c < 4; ++c) whole[c] = products(w[c].first, x) + products(w[c].last, x + 16);
    sums[r] = fma(join(whole, Type::kZero * run.sum), scale * four(run.scale), sums[r]);
    if constexpr (Type::kHasOffset) {
      sums[r] = fma(offset, four(static_cast<float>(run.sum) * run.scale), sums[r]);
    }
  }
}

// Adds the products of a stretch of four columns with R rows.
template <class Type, int R>
inline void dot_stretch(const uint8_t* const (&stretches)[4], int64_t k, int n_runs, const tinker::PackedRow* rows,
                        Four (&sums)[R]) {
  Scales scales[4];
  for (int c = 0; c < 4; ++c) Type::read_scales(stretches[c], n_runs, scales[c]);
  for (int i = 0; i < n_runs; ++i) {
    Numbers w[4];
    for (int c = 0; c < 4; ++c) w[c] = Type::numbers(stretches[c], i);
    dot_run<Type, R>(w, scales, i, k, rows, sums);
  }
}

// --- more rows ---

// 48 columns of a stretch. A pair is two neighbouring integers of a column, in the place of a float.
struct GroupPanel {
  static constexpr int kPairs = tinker::kRun / 2;  // of a run
  float pairs[kMostRuns * kPairs][kWidth];
  float scales[kMostRuns][kWidth];
  float offsets[kMostRuns][kWidth];
};


template <class Type>
inline void unpack_stretches(const uint8_t* const (&stretches)[kWidth], int n_runs, GroupPanel& panel) {
  for (int c = 0; c < kWidth; ++c) {
    Scales scales;
    Type::read_scales(stretches[c], n_runs, scales);
    for (int i = 0; i < n_runs; ++i) {
      panel.scales[i][c] = scales.scales[i];
      if constexpr (Type::kHasOffset) panel.offsets[i][c] = scales.offsets[i];
    }
  }
  for (int i = 0; i < n_runs; ++i) {
    for (int c = 0; c < kWidth; c += 16) {
      prefetch_next<Type>(stretches, kWidth / kMostRuns * i + c / 8, 2);
      float rows[16][GroupPanel::kPairs];
      for (int j = 0; j < 16; ++j) {
        const Numbers numbers = Type::numbers(stretches[c + j], i);
        store_pairs(rows[j], numbers.first);
        store_pairs(rows[j] + 8, numbers.last);
      }
      transpose16(rows[0], 16, panel.pairs[GroupPanel::kPairs * i] + c, kWidth);
    }
  }
}

// Adds the products of R rows with V strips of a panel's columns to sums. A function of its own, so that nothing
// beside it takes registers.
template <class Type, int R, int V>
TINKER_APART void multiply_strips(const tinker::PackedRow* rows, int64_t k, int n_runs, const GroupPanel& panel,
                                  int column, float (&sums)[R][V * kStrip]) {
  for (int i = 0; i < n_runs; ++i) {
    Ints whole[R][V];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) whole[r][v] = no_ints();
    }
    TINKER_UNROLLED
    for (int j = 0; j < GroupPanel::kPairs; ++j) {
      Ints w[V];
      for (int v = 0; v < V; ++v) w[v] = load_pairs(panel.pairs[GroupPanel::kPairs * i + j] + column + v * kStrip);
      for (int r = 0; r < R; ++r) {
        const Ints x = pair(rows[r].numbers + k + tinker::kRun * i + 2 * j);
        for (int v = 0; v < V; ++v) whole[r][v] = add_products(whole[r][v], w[v], x);
      }
    }
    for (int r = 0; r < R; ++r) {
      const tinker::Run& run = rows[r].scales[k / tinker::kRun + i];
      for (int v = 0; v < V; ++v) {
        const int place = column + v * kStrip;
        float* to = sums[r] + v * kStrip;
        const Strip scale = load_strip(panel.scales[i] + place) * strip(run.scale);
        Strip total = fma(to_floats(whole[r][v], Type::kZero * run.sum), scale, load_strip(to));
        if constexpr (Type::kHasOffset) {
          const Strip of_run = strip(static_cast<float>(run.sum) * run.scale);
          total = fma(load_strip(panel.offsets[i] + place), of_run, total);
        }
        store_strip(to, total);
      }
    }
  }
}
