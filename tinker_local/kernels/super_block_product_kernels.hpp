// A super-block of weights, whose scales are integers, too, times activations of eight bits.
//
// A step is what an activation's integer counts: one to sixteen times the smallest of its 256. So integer times scale
// times step is an integer, too, and a super-block's sum is below 2^31.
//
// Over `Shorts`, sixteen integers of sixteen bits, and `Octets`, 32 of eight without a sign. `Quads` are sums of
// products of four neighbours, for as many columns as `Ints`; none may grow above kMostOfQuads.

// Activations to integers, as pack_groups.
void pack_super_blocks(const float* x, int64_t n, int8_t* numbers, tinker::SuperRun* runs) {
  constexpr float largest = 127, most_steps = 16, negligible = 1e-30f;
  for (int64_t k = 0; k < n; k += tinker::kStretch, ++runs) {
    float most_of_run[kMostRuns], most = 0, spoiled = 0;
    for (int i = 0; i < kMostRuns; ++i) {
      const Lanes a = load(x + k + i * tinker::kRun), b = load(x + k + i * tinker::kRun + kLanes);
      most_of_run[i] = maximum(max(magnitude(a), magnitude(b)));
      most = most_of_run[i] > most ? most_of_run[i] : most;
      spoiled += no_number(a, b);
    }
    const bool is_zero = spoiled != 0 || most < negligible;
    const float by = is_zero ? 0 : most_steps * largest / most;
    runs->scale = is_zero ? spoiled : most / (most_steps * largest);
    for (int i = 0; i < kMostRuns; ++i, numbers += tinker::kRun) {
      const float of_run = most_of_run[i] * by / largest;  // NaN and infinity are no integers
      const int step = is_zero || of_run < 1 ? 1 : of_run > most_steps - 1 ? 16 : static_cast<int>(ceilf(of_run));
      const Lanes factor = all(by / static_cast<float>(step));
      Lanes a = load(x + k + i * tinker::kRun), b = load(x + k + i * tinker::kRun + kLanes);
      a = is_zero ? all(0.0f) : rounded(a * factor);
      b = is_zero ? all(0.0f) : rounded(b * factor);
      store_signed(numbers, a, b);
      runs->steps[i] = static_cast<int16_t>(step);
      runs->step_pairs[i] = step << 16 | step;
      runs->sums[i] = static_cast<int16_t>(static_cast<int>(sum(a)) * step);
      runs->sums[kMostRuns + i] = static_cast<int16_t>(static_cast<int>(sum(b)) * step);
    }
  }
}

// --- few rows ---

// The products of one column with R rows, and of its offsets.
template <class Type, int R>
inline void dot_column(const uint8_t* block, const SuperScales& of_column, int64_t k, const tinker::SuperRow* rows,
                       Products (&wholes)[R], Products (&offsets)[R]) {
  Shorts scales[R];
  for (int r = 0; r < R; ++r) {
    const tinker::SuperRun& x = rows[r].scales[k / tinker::kStretch];
    scales[r] = of_column.scales * twice(x.steps);
    wholes[r] = products(of_column.scales * shorts(-Type::kZero), x.sums);
    if constexpr (Type::kHasOffset) offsets[r] = products(of_column.offsets, x.sums);
  }
  for (int i = 0; i < kMostRuns; i += Type::kPhases) {
    TINKER_UNROLLED
    for (int phase = 0; phase < Type::kPhases; ++phase) {
      const Octets w = run_of_block<Type>(block, i + phase);
      for (int r = 0; r < R; ++r) {
        const int8_t* x = rows[r].numbers + k + (i + phase) * tinker::kRun;
        wholes[r] = wholes[r] + products(w, x, scales[r], i + phase);
      }
    }
  }
}

// Adds the products of a super-block of four columns with R rows.
template <class Type, int R>
inline void dot_stretch(const uint8_t* const (&blocks)[4], int64_t k, int, const tinker::SuperRow* rows,
                        Four (&sums)[R]) {
  Products wholes[4][R], offsets[4][R];
  SuperScales scales[4];
  for (int c = 0; c < 4; ++c) {
    scales[c] = Type::read_scales(blocks[c]);
    dot_column<Type, R>(blocks[c], scales[c], k, rows, wholes[c], offsets[c]);
  }
  const Four scale = set_four(scales[0].scale, scales[1].scale, scales[2].scale, scales[3].scale);
  const Four offset = set_four(scales[0].offset, scales[1].offset, scales[2].offset, scales[3].offset);
  for (int r = 0; r < R; ++r) {
    const Four of_row = four(rows[r].scales[k / tinker::kStretch].scale);
    const Products whole[4] = {wholes[0][r], wholes[1][r], wholes[2][r], wholes[3][r]};
    sums[r] = fma(join(whole, 0), scale * of_row, sums[r]);
    if constexpr (Type::kHasOffset) {
      const Products of_offsets[4] = {offsets[0][r], offsets[1][r], offsets[2][r], offsets[3][r]};
      sums[r] = fma(join(of_offsets, 0), offset * of_row, sums[r]);
    }
  }
}

// --- more rows ---

// 48 columns of super-blocks. A quad is four neighbouring integers of a column, in the place of a float; a pair
// is two of sixteen bits. Scales are the same twice; offsets are neighbours.
struct SuperPanel {
  static constexpr int kGroups = 2 * kMostRuns, kQuads = 4;  // of sixteen, and in each
  float quads[kGroups * kQuads][kWidth];
  float scale_pairs[kGroups][kWidth];
  float offset_pairs[kGroups / 2][kWidth];
  float scales[kWidth], offsets[kWidth];
};

// Of sixteen columns from c on.
template <class Type>
inline void unpack_scales(const uint8_t* const (&blocks)[kWidth], int c, SuperPanel& panel) {
  float neighbours[16][16], turned[16][16];  // of a column: pairs of scales, then pairs of offsets
  for (int j = 0; j < 16; ++j) {
    const SuperScales of_column = Type::read_scales(blocks[c + j]);
    panel.scales[c + j] = of_column.scale;
    panel.offsets[c + j] = of_column.offset;
    store_pairs(neighbours[j], of_column.scales);
    store_pairs(neighbours[j] + 8, Type::kHasOffset ? of_column.offsets : of_column.scales * shorts(-Type::kZero));
  }
  transpose16(neighbours[0], 16, turned[0], 16);
  for (int p = 0; p < 8; ++p) {
    for (int v = 0; v < 16; v += kStrip) {
      const Ints scales = load_pairs(turned[p] + v);
      store_pairs(panel.scale_pairs[2 * p] + c + v, first_twice(scales));
      store_pairs(panel.scale_pairs[2 * p + 1] + c + v, last_twice(scales));
    }
    memcpy(panel.offset_pairs[p] + c, turned[8 + p], sizeof turned[p]);
  }
}

// The lines of sixteen columns, turned: four bytes of a column lie beside those of the others.
template <class Type>
struct TurnedLines {
  static constexpr int kInts = 8;  // of four bytes each, in a line
  float of[Type::kLines + 1][kInts][16];

  explicit TurnedLines(const uint8_t* const* blocks) {
    for (int i = 0; i < Type::kLines; i += 2) {
      float two[16][2 * kInts] = {};
      const size_t size = (i + 1 < Type::kLines ? 2 : 1) * kInts * sizeof(float);
      for (int c = 0; c < 16; ++c) memcpy(two[c], blocks[c] + Type::kFirstLine + 32 * i, size);
      transpose16(two[0], 2 * kInts, of[i][0], 16);
    }
  }
};

template <class Type>
inline void unpack_stretches(const uint8_t* const (&blocks)[kWidth], int, SuperPanel& panel) {
  for (int c = 0; c < kWidth; c += 16) {
    unpack_scales<Type>(blocks, c, panel);
    const TurnedLines<Type> lines(blocks + c);
    for (int j = 0; j < TurnedLines<Type>::kInts; ++j) {
      prefetch_next<Type>(blocks, c + 2 * j, 2);
      TINKER_UNROLLED
      for (int run = 0; run < kMostRuns; ++run) {
        for (int half = 0; half < 16; half += 8) {
          const auto line = [&](int i) { return load_octets(reinterpret_cast<const uint8_t*>(lines.of[i][j] + half)); };
          store_octets(panel.quads[TurnedLines<Type>::kInts * run + j] + c + half, run_of_lines<Type>(line, run));
        }
      }
    }
  }
}

// Adds the products of N quads, times their scales, to `whole`.
template <int R, int V, int N>
inline void add_quads_of_scale(const float* quads, const float* scale_pairs, const int8_t* const (&x)[R],
                               const int32_t* const (&steps)[R], Ints* whole) {
  Quads sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sums[r][v] = no_quads();
  }
  TINKER_UNROLLED
  for (int j = 0; j < N; ++j) {
    Ints w[V];
    for (int v = 0; v < V; ++v) w[v] = load_pairs(quads + j * kWidth + v * kStrip);
    for (int r = 0; r < R; ++r) {
      const Ints four = four_of(x[r] + 4 * j);
      for (int v = 0; v < V; ++v) sums[r][v] = add_quads(sums[r][v], w[v], four);
    }
  }
  for (int v = 0; v < V; ++v) {
    const Ints scale = load_pairs(scale_pairs + v * kStrip);
    for (int r = 0; r < R; ++r) whole[r * V + v] = whole[r * V + v] + scaled(sums[r][v], scale, *steps[r]);
  }
}

// The same of all quads of a super-block. A function of its own, so that nothing beside it takes registers.
template <class Type, int R, int V>
TINKER_APART void add_all_quads(const tinker::SuperRow* rows, int64_t k, const SuperPanel& panel, int column,
                                Ints* whole) {
  constexpr int of_scale = Type::kGroup / 4, most = kMostOfQuads / (2 * 127 * Type::kMost);
  constexpr int together = most < of_scale ? most : of_scale;
  const int8_t* x[R];
  const int32_t* steps[R];
  for (int r = 0; r < R; ++r) {
    x[r] = rows[r].numbers + k;
    steps[r] = rows[r].scales[k / tinker::kStretch].step_pairs;
  }
  const auto add = [&](int quad, const float* scale_pairs) {
    add_quads_of_scale<R, V, together>(panel.quads[quad] + column, scale_pairs + column, x, steps, whole);
    for (int r = 0; r < R; ++r) x[r] += 4 * together;
  };
  for (int i = 0; i < kMostRuns; ++i) {
    for (int j = 0; j < 8; j += together) add(8 * i + j, panel.scale_pairs[i + j / of_scale * kMostRuns]);
    for (int r = 0; r < R; ++r) ++steps[r];
  }
}

// Adds the products of R rows with V strips of a panel's columns to sums.
template <class Type, int R, int V>
inline void multiply_strips(const tinker::SuperRow* rows, int64_t k, int, const SuperPanel& panel, int column,
                            float (&sums)[R][V * kStrip]) {
  Ints whole[R][V], offsets[R][V];
  for (int r = 0; r < R; ++r) {
    const tinker::SuperRun& x = rows[r].scales[k / tinker::kStretch];
    for (int v = 0; v < V; ++v) {
      offsets[r][v] = no_ints();
      for (int p = 0; p < kMostRuns; ++p) {
        const Ints w = load_pairs(panel.offset_pairs[p] + column + v * kStrip);
        offsets[r][v] = add_products(offsets[r][v], w, pair(x.sums + 2 * p));
      }
      whole[r][v] = Type::kHasOffset ? no_ints() : offsets[r][v];
    }
  }
  add_all_quads<Type, R, V>(rows, k, panel, column, whole[0]);
  for (int r = 0; r < R; ++r) {
    const Strip of_row = strip(rows[r].scales[k / tinker::kStretch].scale);
    for (int v = 0; v < V; ++v) {
      const int place = column + v * kStrip;
      float* to = sums[r] + v * kStrip;
      Strip total = fma(to_floats(whole[r][v], 0), load_strip(panel.scales + place) * of_row, load_strip(to));
      if constexpr (Type::kHasOffset) {
        total = fma(to_floats(offsets[r][v], 0), load_strip(panel.offsets + place) * of_row, total);
      }
      store_strip(to, total);
    }
  }
}
