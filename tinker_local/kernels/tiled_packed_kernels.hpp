// Products of packed weights with many rows, in tiles: the same bits as in group_product_kernels.hpp and
// super_block_product_kernels.hpp.
//
// Integers of at most eight bits are numbers of bfloat16. Larger ones are the sum of two: a multiple of 256, and what is
// left. A group's products with either part have an exact sum in the tile's float32: multiples of 256 up to 2^27, and
// what is below 2^21. The instruction adds one sum to the other. That rounds once, as where an integer becomes a float.
// Then the sum leaves the tile, and is scaled. Sums of a super-block's runs are at most 2^24, and so exact. They become
// integers again, which are multiplied by integer scales.
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

void pack_super_block(const float* const* x, int n_rows, int64_t n, SuperStretch* to) {
  PackedRows<int8_t, tinker::SuperRun, 1> packed = {};
  alignas(tinker::kLine) Step step, upper = {}, lower = {};
  for (int64_t k = 0; k < n; k += kStretch, ++to) {
    for (int r = 0; r < n_rows; ++r) base()->pack_super_blocks(x[r] + k, kStretch, packed.numbers[r], packed.scales[r]);
    for (int i = 0; i < kMostRuns; ++i) {
      for (int r = 0; r < kSide; ++r) {
        const int8_t* numbers = packed.numbers[r] + i * kStep;
        for (int j = 0; j < kStep; ++j) step[r][j] = to_bfloat(numbers[j]);
        to->steps[i][r] = packed.scales[r]->steps[i];
      }
      place(step, kSide, to->numbers[i]);
    }
    for (int r = 0; r < kSide; ++r) {
      const int16_t* sums = packed.scales[r]->sums;
      for (int j = 0; j < kSide; ++j) upper[r][j] = to_bfloat(upper_of(sums[j]));
      for (int j = 0; j < kSide; ++j) lower[r][j] = to_bfloat(lower_of(sums[j]));
      to->scales[r] = packed.scales[r]->scale;
    }
    place(upper, kSide, to->upper_sums);
    place(lower, kSide, to->lower_sums);
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

// The products of a tile of weights with one of activations, or with two, or of two with one.
inline void multiply_tiles(const uint16_t* w, const uint16_t* other_w, const uint16_t* x, const uint16_t* other_x,
                           float* products) {
  LOAD_TILE(4, w, tinker::kLine);
  LOAD_TILE(6, x, tinker::kLine);
  CLEAR_TILE(0);
  ADD_PRODUCTS(0, 4, 6);
  if (other_w) {
    LOAD_TILE(5, other_w, tinker::kLine);
    ADD_PRODUCTS(0, 5, 6);
  }
  if (other_x) {
    LOAD_TILE(7, other_x, tinker::kLine);
    ADD_PRODUCTS(0, 4, 7);
  }
  STORE_TILE(0, products, tinker::kLine);
}

// Adds the products of sixteen columns with a block to its sums.
template <class Type>
inline void add_stretch(const GroupColumns& w, const GroupStretch& x, int n_runs, float* kept) {
  alignas(tinker::kLine) float products[2][kSums];
  Sums sums(kept);
  for (int i = 0; i < n_runs; ++i) {
    float* found = products[i % 2];
    multiply_tiles(w.numbers[i], nullptr, x.numbers[i][0], x.numbers[i][1], found);
    sums.add(found, w.scales[i], x.scales[i]);
    if constexpr (Type::kHasOffset) sums.add(w.offsets[i], x.sums[i]);
  }
  sums.store(kept);
}

// --- super-blocks ---

// Sixteen columns of super-blocks. Where sixteen weights share an integer scale, integers are times the scale, in two
// tiles if eight bits are too few. Where 32 do, their sum is multiplied by it.
struct alignas(tinker::kLine) SuperColumns {
  uint16_t upper[kMostRuns][kTile], numbers[kMostRuns][kTile];
  int32_t integer_scales[kMostRuns][kSide];
  uint16_t integer_offsets[kTile];
  float scales[kSide], offsets[kSide];
};

template <class Type>
constexpr bool kIsScaledBefore = Type::kGroup == 16;
template <class Type>
constexpr bool kHasUpper = std::is_same_v<Type, Q6_K>;

constexpr BfloatTable kFiveBits = BfloatTable::from(0, 5);

template <int n, int phase = 0, class F>
inline void each_phase(F f) {
  f(std::integral_constant<int, phase>());
  if constexpr (phase + 1 < n) each_phase<n, phase + 1>(f);
}

template <class Type>
inline void unpack_column(const uint8_t* block, int, int column, SuperColumns& to) {
  const SuperScales scales = Type::read_scales(block);
  int16_t integers[2 * kMostRuns], offsets[2 * kMostRuns];
  store_shorts(integers, scales.scales);
  store_shorts(offsets, scales.offsets);
  to.scales[column] = scales.scale;
  to.offsets[column] = scales.offset;
  for (int i = 0; i < kMostRuns; i += Type::kPhases) {
    each_phase<Type::kPhases>([&](auto phase) {
      const int run = i + phase;
      const Octets found = Type::numbers(block, i / Type::kPhases, phase);
      uint16_t* numbers = to.numbers[run] + column * kStep;
      if constexpr (kIsScaledBefore<Type>) {
        uint16_t* upper = kHasUpper<Type> ? to.upper[run] + column * kStep : nullptr;
        from_octets(found, Type::kZero, integers[run], integers[kMostRuns + run], upper, numbers);
      } else {
        from_octets(found, kFiveBits, numbers);
        to.integer_scales[run][column] = integers[run];
      }
    });
  }
  if constexpr (!Type::kHasOffset) return;
  uint16_t* row = to.integer_offsets + column * kStep;
  memset(row + kSide, 0, (kStep - kSide) * sizeof *row);
  for (int j = 0; j < kSide; ++j) row[j] = to_bfloat(offsets[j]);
}

template <class Type>
inline void add_stretch(const SuperColumns& w, const SuperStretch& x, int, float* kept) {
  alignas(tinker::kLine) float products[2][kSums];
  IntegerSums whole;
  for (int i = 0; i < kMostRuns; ++i) {
    float* found = products[i % 2];
    multiply_tiles(w.numbers[i], kHasUpper<Type> ? w.upper[i] : nullptr, x.numbers[i], nullptr, found);
    if constexpr (kIsScaledBefore<Type>) {
      whole.add(found, x.steps[i]);
    } else {
      whole.add(found, w.integer_scales[i], x.steps[i]);
    }
  }
  whole.store(products[0]);
  Sums sums(kept);
  sums.add(products[0], w.scales, x.scales);
  if constexpr (Type::kHasOffset) {
    multiply_tiles(w.integer_offsets, nullptr, x.upper_sums, x.lower_sums, products[1]);
    sums.add(products[1], w.offsets, x.scales);
  }
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
  constexpr int n_bytes = kStretch / Type::kSize * Type::kBytes;
  for (int c = 0; c < (n + kSide - 1) / kSide * kSide; ++c) {
    const char* column = weights.data + static_cast<size_t>(first + (c < n ? c : n - 1)) * weights.stride;
    const auto* stretch = reinterpret_cast<const uint8_t*>(column) + k / Type::kSize * Type::kBytes;
    for (int i = 0; i < n_bytes; i += tinker::kLine) __builtin_prefetch(stretch + kSide * weights.stride + i);
    unpack_column<Type>(stretch, n_runs, c % kSide, to[c / kSide]);
  }
}

// Where the sums of some columns go, for the rows of a block.
template <class Row>
struct Outputs {
  const Row* rows;
  int n_rows;
  int64_t column;
  int n_columns;

  void fetch() const {
    for (int r = 0; r < n_rows; ++r) __builtin_prefetch(rows[r].output + column, 1);
  }
  void write(const float* sums) const { write_tile(sums, rows, n_rows, column, n_columns); }
};

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
        const Outputs<StretchRow<StretchOf<Type>>> outputs{rows + row, std::min(n_rows - row, kSide),
                                                           first + done + column, n - column};
        // Of logits, most are in no cache: they are fetched while the tiles multiply.
        if (is_last) outputs.fetch();
        float* sums = kept + i * kSums;
        add_stretch<Type>(columns[i % n_sixteens], rows[row].stretches[k / kStretch], n_runs, sums);
        if (is_last) outputs.write(sums);
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
