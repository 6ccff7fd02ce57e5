// Products with groups of 32 packed weights in tiles, for many rows: the same bits as in group_product_kernels.hpp.
//
// Integers of at most eight bits are numbers of bfloat16. So a group's weights are, and an activation's integer is the
// sum of two. Sums of a group's products are below 2^24, and so exact in a tile. They leave it before the scales are
// applied.
//
// Over the formats of weight_kernels.hpp and, for what is beside the tiles, avx512_tiles.hpp.

// --- activations ---

// Integers as sums of multiples of 256 and what is left.
inline void split(const int16_t* numbers, uint16_t (&upper)[kStep], uint16_t (&lower)[kStep]) {
  for (int i = 0; i < kStep; ++i) {
    const int whole = numbers[i] & ~255;
    upper[i] = static_cast<uint16_t>(bits_of(static_cast<float>(whole)) >> 16);
    lower[i] = static_cast<uint16_t>(bits_of(static_cast<float>(numbers[i] - whole)) >> 16);
  }
}

// A stretch of sixteen rows in integers. Rows that are not there are zero.
struct PackedRows {
  int16_t numbers[kSide][tinker::kStretch];
  tinker::Run runs[kSide][kMostRuns];
};

// A block of rows, of which there may be fewer than sixteen.
void pack_block(const float* const* x, int n_rows, int64_t n, float largest, const tinker::GroupBlock& to) {
  PackedRows packed = {};
  alignas(tinker::kLine) Step upper, lower;
  uint16_t* tiles = to.tiles;
  tinker::GroupScales* scales = to.scales;
  for (int64_t k = 0; k < n; k += tinker::kStretch) {
    const int64_t size = n - k < tinker::kStretch ? n - k : tinker::kStretch;
    for (int r = 0; r < n_rows; ++r) base()->pack_groups(x[r] + k, size, largest, packed.numbers[r], packed.runs[r]);
    for (int i = 0; i < size / tinker::kRun; ++i, tiles += 2 * kTile, ++scales) {
      for (int r = 0; r < kSide; ++r) {
        split(packed.numbers[r] + i * tinker::kRun, upper[r], lower[r]);
        const tinker::Run& run = packed.runs[r][i];
        scales->scales[r] = run.scale;
        scales->sums[r] = static_cast<float>(run.sum) * run.scale;
      }
      place(upper, kSide, tiles);
      place(lower, kSide, tiles + kTile);
    }
  }
}

// --- weights ---

// Sixteen columns' scales of a group, and their offsets.
struct ColumnScales {
  float scales[kSide], offsets[kSide];
};

// Some columns, up to 256 weights or a few times as many of each, sixteen by sixteen. Steps of sixteen columns lie one
// behind the other.
struct GroupPanel {
  uint16_t* tiles;
  ColumnScales* scales;
  int64_t n_runs;

  GroupPanel(float* memory, int n_sixteens, int64_t n_runs)
      : tiles(reinterpret_cast<uint16_t*>(memory)),
        scales(reinterpret_cast<ColumnScales*>(tiles + n_sixteens * n_runs * kTile)), n_runs(n_runs) {}

  uint16_t* tiles_of(int sixteen) const { return tiles + sixteen * n_runs * kTile; }
  ColumnScales* scales_of(int sixteen) const { return scales + sixteen * n_runs; }
};

// What the integers of a type mean.
template <class Type>
constexpr int kBits = std::is_same_v<Type, Q5_0> || std::is_same_v<Type, Q5_1> ? 5 : 4;
template <class Type>
constexpr BfloatTable kMeaning = BfloatTable::from(-Type::kZero, kBits<Type>);
template <>
constexpr BfloatTable kMeaning<IQ4_NL> = BfloatTable::with(kNonLinear);
template <>
constexpr BfloatTable kMeaning<IQ4_XS> = BfloatTable::with(kNonLinear);
template <>
constexpr BfloatTable kMeaning<MXFP4> = BfloatTable::with(MXFP4::kDoubled);

// Run i of a stretch.
template <class Type>
inline void unpack_run(const uint8_t* stretch, int i, uint16_t* to) {
  const uint8_t* block = stretch + i * Type::kBytes;
  if constexpr (std::is_same_v<Type, Q8_0>) {
    from_signed(block + 2, to);
  } else if constexpr (std::is_same_v<Type, IQ4_XS>) {
    from_nibbles(stretch + 8 + 16 * i, kMeaning<Type>, to);
  } else if constexpr (kBits<Type> == 5) {
    from_nibbles(block + Type::kBytes - 16, block + Type::kBytes - 20, kMeaning<Type>, to);
  } else {
    from_nibbles(block + Type::kBytes - 16, kMeaning<Type>, to);
  }
}

template <class Type>
inline void unpack_stretch(const uint8_t* stretch, int n_runs, uint16_t* tiles, ColumnScales* to, int column) {
  Scales scales;
  Type::read_scales(stretch, n_runs, scales);
  for (int i = 0; i < n_runs; ++i) {
    unpack_run<Type>(stretch, i, tiles + i * kTile + column * kStep);
    to[i].scales[column] = scales.scales[i];
    if constexpr (Type::kHasOffset) to[i].offsets[column] = scales.offsets[i];
  }
}

// n columns; those behind the last are the last one's once more.
template <class Type>
inline void unpack(const Weights& weights, int64_t first, int n, int64_t k, int64_t end, const GroupPanel& panel) {
  for (int c = 0; c < (n + kSide - 1) / kSide * kSide; ++c) {
    const char* column = weights.data + static_cast<size_t>(first + (c < n ? c : n - 1)) * weights.stride;
    uint16_t* tiles = panel.tiles_of(c / kSide);
    ColumnScales* scales = panel.scales_of(c / kSide);
    for (int64_t at = k; at < end; at += tinker::kStretch, tiles += kMostRuns * kTile, scales += kMostRuns) {
      const auto* stretch = reinterpret_cast<const uint8_t*>(column) + at / Type::kSize * Type::kBytes;
      const int n_runs = static_cast<int>((end - at < tinker::kStretch ? end - at : tinker::kStretch) / tinker::kRun);
      for (int i = 0; i < n_runs * Type::kBytes; i += tinker::kLine) __builtin_prefetch(stretch + kSide * weights.stride + i);
      unpack_stretch<Type>(stretch, n_runs, tiles, scales, c % kSide);
    }
  }
}

// --- products ---

// Adds the products of sixteen columns with a block. `x` and `of_x` are the block's from the panel's first run on.
template <bool has_offset>
inline void add_groups(const uint16_t* w, const ColumnScales* of_w, const uint16_t* x, const tinker::GroupScales* of_x,
                       int64_t n_runs, Sums& sums) {
  alignas(tinker::kLine) float products[2][kSums];
  for (int64_t i = 0; i < n_runs; ++i, w += kTile, x += 2 * kTile) {
    float* found = products[i % 2];
    LOAD_TILE(4, w, tinker::kLine);
    LOAD_TILE(6, x, tinker::kLine);
    LOAD_TILE(7, x + kTile, tinker::kLine);
    CLEAR_TILE(0);
    ADD_PRODUCTS(0, 4, 6);
    ADD_PRODUCTS(0, 4, 7);
    STORE_TILE(0, found, tinker::kLine);
    sums.add(found, of_w[i].scales, of_x[i].scales);
    if constexpr (has_offset) sums.add(of_w[i].offsets, of_x[i].sums);
  }
}

template <class Type>
void multiply_groups(const Weights& weights, int64_t first, int n_columns, const tinker::GroupRow* rows, int n_rows,
                     float* scratch) {
  const int64_t size = weights.size;
  const int wide = n_rows <= kTiledRows ? kStripColumns : tinker::kTiledColumns;
  const int n_blocks = (n_rows + kSide - 1) / kSide;
  configure(kSide, kSide);
  for (int done = 0; done < n_columns; done += wide) {
    const int n = n_columns - done < wide ? n_columns - done : wide, n_sixteens = (n + kSide - 1) / kSide;
    float* kept = tinker::on_line(scratch);  // sums, from one panel to the next
    float* memory = kept + n_sixteens * n_blocks * kSums;
    for (int64_t k = 0; k < size; k += tinker::kStretch) {
      const int64_t end = size - k < tinker::kStretch ? size : k + tinker::kStretch;
      const GroupPanel panel(memory, n_sixteens, (end - k) / tinker::kRun);
      unpack<Type>(weights, first + done, n, k, end, panel);
      for (int b = 0; b < n_blocks; ++b) {
        const tinker::GroupRow* of_block = rows + b * kSide;
        const tinker::GroupBlock& x = of_block->block;
        for (int s = 0; s < n_sixteens; ++s) {
          float* kept_sums = kept + (b * n_sixteens + s) * kSums;
          Sums sums = k ? Sums(kept_sums) : Sums();
          add_groups<Type::kHasOffset>(panel.tiles_of(s), panel.scales_of(s), x.tiles + k / tinker::kRun * 2 * kTile,
                                       x.scales + k / tinker::kRun, panel.n_runs, sums);
          sums.store(kept_sums);
          if (end < size) continue;
          const int of_rows = n_rows - b * kSide < kSide ? n_rows - b * kSide : kSide;
          write_tile(kept_sums, of_block, of_rows, first + done + s * kSide, n - s * kSide);
        }
      }
    }
  }
  release_tiles();
}

template <class... Types>
tinker::Multiply<tinker::GroupRow> find_groups(int32_t type) {
  tinker::Multiply<tinker::GroupRow> found = nullptr;
  (void)((type == Types::kType && (found = multiply_groups<Types>)) || ...);
  return found;
}

tinker::Multiply<tinker::GroupRow> tiled_group_product(int32_t type) {
  return find_groups<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS, MXFP4>(type);
}
