// Products of packed weights with many rows, in tiles: the same bits as in group_product_kernels.hpp and
// super_block_product_kernels.hpp.
//
// Integers of at most eight bits are numbers of bfloat16. Larger ones are the sum of two: a multiple of 256, and what
// is left. A group's products with either part have an exact sum in the tile's float32: multiples of 256 up to 2^27,
// and what is below 2^21. The instruction adds one sum to the other. That rounds once, as where an integer becomes a
// float. Then the sum leaves the tile, and is scaled.
//
// A super-block's integers times their integer scales have up to thirteen bits, activations times their steps twelve.
// Both are in two parts, of eight bits. Sums of their products stay in tiles of integers to the end of the super-block.
//
// A stretch of 256 weights at a time, sixteen columns in a tile. A block has sixteen rows of activations.
//
// Over the formats of weight_kernels.hpp and, for what is beside the tiles, avx512_tiles.hpp.

using tinker::GroupStretch;
using tinker::kStretch;
using tinker::StretchRow;
using tinker::SuperStretch;

inline uint16_t to_bfloat(int integer) { return static_cast<uint16_t>(bits_of(static_cast<float>(integer)) >> 16); }

// An integer as a multiple of 256 and what is left.
inline int upper_of(int integer) { return integer & ~255; }
inline int lower_of(int integer) { return integer & 255; }

// --- activations ---

// Integers of a block's rows. Rows that are not there are zero.
template <class Number, class Scale, int n_scales>
struct PackedRows {
  Number numbers[kSide][kStretch];
  Scale scales[kSide][n_scales];
};

void pack_group_block(const float* const* x, int n_rows, int64_t n, GroupStretch* to) {
  PackedRows<int16_t, tinker::Run, kMostRuns> packed = {};
  alignas(tinker::kLine) Step upper, lower;
  for (int64_t k = 0; k < n; k += kStretch, ++to) {
    const int64_t size = n - k < kStretch ? n - k : kStretch;
    for (int r = 0; r < n_rows; ++r) base()->pack_groups(x[r] + k, size, packed.numbers[r], packed.scales[r]);
    for (int i = 0; i < size / kStep; ++i) {
      for (int r = 0; r < kSide; ++r) {
        const int16_t* numbers = packed.numbers[r] + i * kStep;
        for (int j = 0; j < kStep; ++j) upper[r][j] = to_bfloat(upper_of(numbers[j]));
        for (int j = 0; j < kStep; ++j) lower[r][j] = to_bfloat(lower_of(numbers[j]));
        const tinker::Run& run = packed.scales[r][i];
        to->scales[i][r] = run.scale;
        to->sums[i][r] = static_cast<float>(run.sum) * run.scale;
      }
      place(upper, kSide, to->numbers[i][0]);
      place(lower, kSide, to->numbers[i][1]);
    }
  }
}

// 64 bytes of each row of a block, four neighbours beside those of the other rows: a tile.
using Depth = int8_t[kSide][SuperStretch::kDepth];
inline void place(const Depth& depth, int8_t* tile) {
  transpose16(reinterpret_cast<const float*>(depth), kSide, reinterpret_cast<float*>(tile), kSide);
}

void pack_super_block(const float* const* x, int n_rows, int64_t n, SuperStretch* to) {
  constexpr int runs_of_step = SuperStretch::kDepth / kStep;
  PackedRows<int8_t, tinker::SuperRun, 1> packed = {};
  alignas(tinker::kLine) Depth upper, lower;
  alignas(tinker::kLine) Step sums;
  for (int64_t k = 0; k < n; k += kStretch, ++to) {
    for (int r = 0; r < n_rows; ++r) base()->pack_super_blocks(x[r] + k, kStretch, packed.numbers[r], packed.scales[r]);
    for (int i = 0; i < SuperStretch::kSteps; ++i) {
      for (int r = 0; r < kSide; ++r) {
        const int8_t* numbers = packed.numbers[r] + i * SuperStretch::kDepth;
        for (int j = 0; j < SuperStretch::kDepth; ++j) {
          const int integer = numbers[j] * packed.scales[r]->steps[i * runs_of_step + j / kStep];
          upper[r][j] = static_cast<int8_t>(integer >> 7);
          lower[r][j] = static_cast<int8_t>(integer & 127);
        }
      }
      place(upper, to->upper[i]);
      place(lower, to->lower[i]);
    }
    for (int r = 0; r < kSide; ++r) {
      const tinker::SuperRun& run = *packed.scales[r];
      write_parts(run.sums, sums[r]);
      to->scales[r] = run.scale;
    }
    place(sums, kSide, to->sums);
  }
}

// --- groups of 32 weights ---

// Sixteen columns of a stretch.
struct alignas(tinker::kLine) GroupColumns {
  uint16_t numbers[kMostRuns][kTile];
  float scales[kMostRuns][kSide], offsets[kMostRuns][kSide];
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
inline void unpack_column(const uint8_t* stretch, int n_runs, int column, GroupColumns& to) {
  Scales scales;
  Type::read_scales(stretch, n_runs, scales);
  for (int i = 0; i < n_runs; ++i) {
    unpack_run<Type>(stretch, i, to.numbers[i] + column * kStep);
    to.scales[i][column] = scales.scales[i];
    if constexpr (Type::kHasOffset) to.offsets[i][column] = scales.offsets[i];
  }
}

// The products of a tile of weights with both parts of activations.
inline void multiply_parts(const uint16_t* w, const uint16_t* upper, const uint16_t* lower, float* products) {
  LOAD_TILE(4, w, tinker::kLine);
  LOAD_TILE(6, upper, tinker::kLine);
  CLEAR_TILE(0);
  ADD_PRODUCTS(0, 4, 6);
  LOAD_TILE(7, lower, tinker::kLine);
  ADD_PRODUCTS(0, 4, 7);
  STORE_TILE(0, products, tinker::kLine);
}

// Adds the products of sixteen columns with a block to its sums.
template <class Type>
inline void add_stretch(const GroupColumns& w, const GroupStretch& x, int n_runs, float* kept) {
  alignas(tinker::kLine) float products[2][kSums];
  Sums sums(kept);
  for (int i = 0; i < n_runs; ++i) {
    float* found = products[i % 2];
    multiply_parts(w.numbers[i], x.numbers[i][0], x.numbers[i][1], found);
    sums.add(found, w.scales[i], x.scales[i]);
    if constexpr (Type::kHasOffset) sums.add(w.offsets[i], x.sums[i]);
  }
  sums.store(kept);
}

// --- super-blocks ---

// Sixteen columns of super-blocks: integers times their scales. Where these have more than eight bits, multiples of 128
// and what is left. Elsewhere what is left is all. There both the integers and the float scale have the other sign,
// since -124 to 128 do not fit eight bits, and -128 to 124 do.
struct alignas(tinker::kLine) SuperColumns {
  int8_t upper[SuperStretch::kSteps][SuperStretch::kTile], lower[SuperStretch::kSteps][SuperStretch::kTile];
  uint16_t integer_offsets[kTile];
  float scales[kSide], offsets[kSide];
};

template <class Type>
constexpr bool kHasUpper = !(std::is_same_v<Type, Q2_K> || std::is_same_v<Type, Q3_K>);

template <int step = 0, class F>
inline void each_step(F f) {
  f(std::integral_constant<int, step>());
  if constexpr (step + 1 < SuperStretch::kSteps) each_step<step + 1>(f);
}

template <class Type>
inline void unpack_column(const uint8_t* block, int, int column, SuperColumns& to) {
  SuperScales scales = Type::read_scales(block);
  if constexpr (!kHasUpper<Type>) {
    scales.scales = scales.scales * shorts(-1);
    scales.scale = -scales.scale;
  }
  to.scales[column] = scales.scale;
  to.offsets[column] = scales.offset;
  each_step([&](auto i) {
    const Octets run = run_of_block<Type>(block, 2 * i), next = run_of_block<Type>(block, 2 * i + 1);
    int8_t* lower = to.lower[i] + column * SuperStretch::kDepth;
    if constexpr (kHasUpper<Type>) {
      int8_t* upper = to.upper[i] + column * SuperStretch::kDepth;
      scale_octets(run, next, Type::kZero, scales.scales, i, upper, lower);
    } else {
      scale_octets(run, next, Type::kZero, scales.scales, i, lower);
    }
  });
  if constexpr (Type::kHasOffset) write_twice(scales.offsets, to.integer_offsets + column * kStep);
}

// Tiles 0 to 3 are sums of integers: upper parts of weights with upper and with lower ones of activations, then lower
// ones of weights with both.
template <bool has_upper>
inline void multiply_integers(const SuperColumns& w, const SuperStretch& x, int32_t (*products)[kSums]) {
  if constexpr (has_upper) {
    CLEAR_TILE(0);
    CLEAR_TILE(1);
  }
  CLEAR_TILE(2);
  CLEAR_TILE(3);
  for (int i = 0; i < SuperStretch::kSteps; ++i) {
    LOAD_TILE(6, x.upper[i], tinker::kLine);
    LOAD_TILE(5, w.lower[i], tinker::kLine);
    LOAD_TILE(7, x.lower[i], tinker::kLine);
    ADD_PRODUCTS_OF_BYTES(2, 5, 6);
    ADD_PRODUCTS_OF_BYTES(3, 5, 7);
    if constexpr (!has_upper) continue;
    LOAD_TILE(4, w.upper[i], tinker::kLine);
    ADD_PRODUCTS_OF_BYTES(0, 4, 6);
    ADD_PRODUCTS_OF_BYTES(1, 4, 7);
  }
  if constexpr (has_upper) {
    STORE_TILE(0, products[0], tinker::kLine);
    STORE_TILE(1, products[1], tinker::kLine);
  }
  STORE_TILE(2, products[2], tinker::kLine);
  STORE_TILE(3, products[3], tinker::kLine);
}

// The products of integer offsets with sums of activations, which have sixteen bits: with their upper parts, then with
// their lower ones. The instruction adds products of even places, and those of odd ones. Both sums are below 2^24, and
// so exact. Together they are rounded once.
inline void multiply_offsets(const SuperColumns& w, const SuperStretch& x, float* products) {
  LOAD_TILE(4, w.integer_offsets, tinker::kLine);
  LOAD_TILE(6, x.sums, tinker::kLine);
  CLEAR_TILE(0);
  ADD_PRODUCTS(0, 4, 6);
  STORE_TILE(0, products, tinker::kLine);
}

template <class Type>
inline void add_stretch(const SuperColumns& w, const SuperStretch& x, int, float* kept) {
  alignas(tinker::kLine) int32_t products[4][kSums];
  alignas(tinker::kLine) float of_offsets[kSums];
  multiply_integers<kHasUpper<Type>>(w, x, products);
  if constexpr (Type::kHasOffset) multiply_offsets(w, x, of_offsets);
  Sums sums(kept);
  sums.add<kHasUpper<Type>>(products, w.scales, x.scales);
  if constexpr (Type::kHasOffset) sums.add(of_offsets, w.offsets, x.scales);
  sums.store(kept);
}

// --- products ---

template <class Row>
struct StretchFor;
template <>
struct StretchFor<tinker::PackedRow> {
  using Stretch = GroupStretch;
  using Columns = GroupColumns;
};
template <>
struct StretchFor<tinker::SuperRow> {
  using Stretch = SuperStretch;
  using Columns = SuperColumns;
};
template <class Type>
using StretchOf = typename StretchFor<typename Type::Row>::Stretch;
template <class Type>
using ColumnsOf = typename StretchFor<typename Type::Row>::Columns;

// A stretch of n columns; those behind the last are the last one's once more. Meanwhile the next ones are fetched.
template <class Type>
inline void unpack(const Weights& weights, int64_t first, int n, int64_t k, int n_runs, ColumnsOf<Type>* to) {
  for (int c = 0; c < (n + kSide - 1) / kSide * kSide; ++c) {
    const char* column = weights.data + static_cast<size_t>(first + (c < n ? c : n - 1)) * weights.stride;
    const uint8_t *stretch = stretch_of<Type>(column, k), *ahead = stretch + kSide * weights.stride;
    for (int i = 0; i < kBytesOfStretch<Type>; i += tinker::kLine) __builtin_prefetch(ahead + i);
    unpack_column<Type>(stretch, n_runs, c % kSide, to[c / kSide]);
  }
}

// Outputs of sixteen columns are written soon. Logits are in no cache, mostly.
template <class Row>
inline void fetch_outputs(const Row* rows, int n_rows, int64_t column) {
  for (int r = 0; r < n_rows; ++r) __builtin_prefetch(rows[r].output + column, 1);
}

template <class Type>
void multiply_packed(const Weights& weights, int64_t first, int n_columns, const StretchRow<StretchOf<Type>>* rows,
                     int n_rows, float* scratch) {
  static_assert(sizeof(ColumnsOf<Type>) <= tinker::kStretchColumnsSize * sizeof(float));
  const int most = n_rows <= kTiledRows ? kStripColumns : tinker::kTiledColumns;
  const int n_blocks = (n_rows + kSide - 1) / kSide;
  float* kept = tinker::on_line(scratch);  // sums, from one stretch to the next
  configure(kSide, kSide);
  for (int done = 0; done < n_columns; done += most) {
    const int n = std::min(n_columns - done, most), n_sixteens = (n + kSide - 1) / kSide;
    const int n_sums = n_sixteens * n_blocks * kSums;
    auto* columns = reinterpret_cast<ColumnsOf<Type>*>(kept + n_sums);
    memset(kept, 0, static_cast<size_t>(n_sums) * sizeof *kept);
    for (int64_t k = 0; k < weights.size; k += kStretch) {
      const bool is_last = weights.size - k <= kStretch;
      const int n_runs = static_cast<int>((is_last ? weights.size - k : kStretch) / kStep);
      unpack<Type>(weights, first + done, n, k, n_runs, columns);
      for (int i = 0; i < n_sixteens * n_blocks; ++i) {
        const int row = i / n_sixteens * kSide, column = i % n_sixteens * kSide;
        const int n_of_block = std::min(n_rows - row, kSide);
        float* sums = kept + i * kSums;
        if (is_last) fetch_outputs(rows + row, n_of_block, first + done + column);
        add_stretch<Type>(columns[i % n_sixteens], rows[row].stretches[k / kStretch], n_runs, sums);
        if (is_last) write_tile(sums, rows + row, n_of_block, first + done + column, n - column);
      }
    }
  }
  release_tiles();
}

template <class Stretch, class... Types>
tinker::Multiply<StretchRow<Stretch>> find_packed(int32_t type) {
  tinker::Multiply<StretchRow<Stretch>> found = nullptr;
  (void)((type == Types::kType && (found = multiply_packed<Types>)) || ...);
  return found;
}

tinker::Multiply<StretchRow<GroupStretch>> tiled_group_product(int32_t type) {
  return find_packed<GroupStretch, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS, MXFP4>(type);
}
tinker::Multiply<StretchRow<SuperStretch>> tiled_super_block_product(int32_t type) {
  return find_packed<SuperStretch, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K>(type);
}
