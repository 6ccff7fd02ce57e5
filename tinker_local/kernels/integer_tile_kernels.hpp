// Products with packed weights in AMX's tiles of integers, for blocks of sixteen rows. They have the bits of
// group_product_kernels.hpp and super_block_product_kernels.hpp: a group's sum is exact in integers, whoever adds.
//
// A tile has sixteen columns, 32 integers of each. Another has the same 32 activations of sixteen rows, in fours. Their
// product is sixteen sums for each column. These leave the tile for memory and are added there, times their scales.
// Meanwhile the tiles multiply the next 32. Activations of sixteen bits are two tiles: upper bytes, and lower ones.

constexpr int kIntegerDepth = 1024;  // numbers of a column that are unpacked at once, for sixteen columns
constexpr int kIntegers = kSide * kSide;

using SumsOfColumns = float[kSide][kSide];
using TileOfSums = int32_t[kSide][kSide];

inline Octets octets_of(Shorts a, Shorts b) {
  return {_mm256_permute4x64_epi64(_mm256_packs_epi16(a.v, b.v), 0xd8)};
}

inline void store_octets(int8_t* p, Octets a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }

// --- groups ---

// 32 activations of a block.
struct GroupRows {
  uint8_t high[kStep / 4][kSide][4], low[kStep / 4][kSide][4];
  float scales[kSide], sums[kSide];  // sums are times the scales
};

// 32 weights of each column, less kZero.
struct GroupColumns {
  int8_t numbers[kSide][kStep];
  float scales[kSide], offsets[kSide];
};

void place_groups(const float* x, int64_t n, const tinker::BlockRow& row) {
  auto* to = static_cast<GroupRows*>(row.block);
  for (int64_t k = 0; k < n; k += kStep, ++to) {
    alignas(32) int16_t numbers[kStep];
    tinker::Run run;
    base()->pack_groups(x + k, kStep, numbers, &run);
    for (int i = 0; i < kStep; ++i) {
      to->high[i / 4][row.place][i % 4] = static_cast<uint8_t>(numbers[i] >> 8);
      to->low[i / 4][row.place][i % 4] = static_cast<uint8_t>(numbers[i]);
    }
    to->scales[row.place] = run.scale;
    to->sums[row.place] = static_cast<float>(run.sum) * run.scale;
  }
}

template <class Type>
struct Groups {
  using Rows = GroupRows;
  using Columns = GroupColumns;
  static constexpr int kNumbers = kStep, kBytesOfTile = kStep;

  // Column c of a stretch.
  static void unpack(const uint8_t* stretch, int n_groups, int c, Columns* to) {
    Scales scales;
    Type::read_scales(stretch, n_groups, scales);
    for (int i = 0; i < n_groups; ++i) {
      const Numbers numbers = Type::numbers(stretch, i);
      const Shorts zero = shorts(-Type::kZero);
      store_octets(to[i].numbers[c], octets_of(numbers.first + zero, numbers.last + zero));
      to[i].scales[c] = scales.scales[i];
      if constexpr (Type::kHasOffset) to[i].offsets[c] = scales.offsets[i];
    }
  }

  static void multiply(const Columns& columns, const Rows& rows, TileOfSums& high, TileOfSums& low) {
    LOAD_TILE(4, columns.numbers, kStep);
    LOAD_TILE(6, rows.high, tinker::kLine);
    LOAD_TILE(7, rows.low, tinker::kLine);
    CLEAR_TILE(0);
    CLEAR_TILE(1);
    ADD_SIGNED(0, 4, 6);
    ADD_UNSIGNED(1, 4, 7);
    STORE_TILE(0, high, tinker::kLine);
    STORE_TILE(1, low, tinker::kLine);
  }

  // Adds the products of n groups.
  static void add(const Columns* columns, const Rows* rows, int n, SumsOfColumns& sums) {
    alignas(tinker::kLine) TileOfSums high[2], low[2];
    Lanes totals[kSide];
    TINKER_UNROLLED
    for (int c = 0; c < kSide; ++c) totals[c] = load(sums[c]);
    multiply(columns[0], rows[0], high[0], low[0]);
    for (int i = 0; i < n; ++i) {
      if (i + 1 < n) multiply(columns[i + 1], rows[i + 1], high[(i + 1) % 2], low[(i + 1) % 2]);
      const Lanes scales = load(rows[i].scales), of_offset = load(rows[i].sums);
      TINKER_UNROLLED
      for (int c = 0; c < kSide; ++c) {
        const Lanes whole = in_sixteen_bits(high[i % 2][c], low[i % 2][c]);
        totals[c] = fma(whole, all(columns[i].scales[c]) * scales, totals[c]);
        if constexpr (Type::kHasOffset) totals[c] = fma(all(columns[i].offsets[c]), of_offset, totals[c]);
      }
    }
    TINKER_UNROLLED
    for (int c = 0; c < kSide; ++c) store(sums[c], totals[c]);
  }
};

// --- super-blocks ---

// 256 activations of a block. `sum_pairs` are two neighbouring sums, of sixteen bits.
struct SuperRows {
  int8_t numbers[kMostRuns][kStep / 4][kSide][4];
  int32_t steps[kMostRuns][kSide], sum_pairs[kMostRuns][kSide];
  float scales[kSide];
};

// 256 weights of each column, less kZero. Scales have sixteen bits, and are followed by zeros. Those of the last sixteen
// numbers of a run come after those of the first.
struct SuperColumns {
  int8_t numbers[kMostRuns][kSide][kStep];
  int32_t scales[2 * kMostRuns][kSide], offset_pairs[kMostRuns][kSide];
  float scale[kSide], offset[kSide];
};

void place_super_blocks(const float* x, int64_t n, const tinker::BlockRow& row) {
  auto* to = static_cast<SuperRows*>(row.block);
  for (int64_t k = 0; k < n; k += tinker::kStretch, ++to) {
    int8_t numbers[tinker::kStretch];
    tinker::SuperRun run;
    base()->pack_super_blocks(x + k, tinker::kStretch, numbers, &run);
    for (int i = 0; i < tinker::kStretch; i += 4) {
      memcpy(to->numbers[i / kStep][i % kStep / 4][row.place], numbers + i, 4);
    }
    for (int i = 0; i < kMostRuns; ++i) {
      to->steps[i][row.place] = run.steps[i];
      memcpy(&to->sum_pairs[i][row.place], run.sums + 2 * i, 4);
    }
    to->scales[row.place] = run.scale;
  }
}

template <class Type>
struct SuperBlocks {
  using Rows = SuperRows;
  using Columns = SuperColumns;
  static constexpr int kNumbers = tinker::kStretch, kBytesOfTile = Type::kGroup;
  static constexpr int kHalves = kStep / Type::kGroup;

  static void unpack(const uint8_t* block, int, int c, Columns* to) {
    const SuperScales packed = Type::read_scales(block);
    int16_t scales[2 * kMostRuns], offsets[2 * kMostRuns];
    memcpy(scales, &packed.scales.v, sizeof scales);
    memcpy(offsets, &packed.offsets.v, sizeof offsets);
    const Octets zero = octets(Type::kZero);
    for (int i = 0; i < kMostRuns; ++i) {
      const Octets numbers = Type::numbers(block, i / Type::kPhases, i % Type::kPhases);
      store_octets(to->numbers[i][c], {_mm256_sub_epi8(numbers.v, zero.v)});
      to->scales[i][c] = static_cast<uint16_t>(scales[i]);
      to->scales[kMostRuns + i][c] = static_cast<uint16_t>(scales[kMostRuns + i]);
      if constexpr (Type::kHasOffset) memcpy(&to->offset_pairs[i][c], offsets + 2 * i, 4);
    }
    to->scale[c] = packed.scale;
    to->offset[c] = packed.offset;
  }

  // Sixteen or 32 numbers: number i of the block's.
  static void multiply(const Columns& columns, const Rows& rows, int i, TileOfSums& to) {
    LOAD_TILE(4, columns.numbers[i / kHalves][0] + i % kHalves * Type::kGroup, kStep);
    LOAD_TILE(6, rows.numbers[i / kHalves][i % kHalves * Type::kGroup / 4], tinker::kLine);
    CLEAR_TILE(0);
    ADD_SIGNED(0, 4, 6);
    STORE_TILE(0, to, tinker::kLine);
  }

  static void add_block(const Columns& columns, const Rows& rows, SumsOfColumns& sums) {
    alignas(tinker::kLine) TileOfSums found[2];
    Wholes wholes[kSide];
    TINKER_UNROLLED
    for (int c = 0; c < kSide; ++c) wholes[c] = no_wholes();
    multiply(columns, rows, 0, found[0]);
    for (int i = 0; i < kMostRuns * kHalves; ++i) {
      if (i + 1 < kMostRuns * kHalves) multiply(columns, rows, i + 1, found[(i + 1) % 2]);
      const Wholes step = load_wholes(rows.steps[i / kHalves]);
      const int32_t* scales = columns.scales[i % kHalves * kMostRuns + i / kHalves];
      TINKER_UNROLLED
      for (int c = 0; c < kSide; ++c) {
        wholes[c] = wholes[c] + load_wholes(found[i % 2][c]) * add_pairs(no_wholes(), all_wholes(scales[c]), step);
      }
    }
    const Lanes scales = load(rows.scales);
    TINKER_UNROLLED
    for (int c = 0; c < kSide; ++c) {
      store(sums[c], fma(to_lanes(wholes[c]), all(columns.scale[c]) * scales, load(sums[c])));
    }
    if constexpr (Type::kHasOffset) add_offsets(columns, rows, sums);
  }

  static void add_offsets(const Columns& columns, const Rows& rows, SumsOfColumns& sums) {
    const Lanes scales = load(rows.scales);
    for (int c = 0; c < kSide; ++c) {
      Wholes offsets = no_wholes();
      for (int p = 0; p < kMostRuns; ++p) {
        offsets = add_pairs(offsets, all_wholes(columns.offset_pairs[p][c]), load_wholes(rows.sum_pairs[p]));
      }
      store(sums[c], fma(to_lanes(offsets), all(columns.offset[c]) * scales, load(sums[c])));
    }
  }

  static void add(const Columns* columns, const Rows* rows, int n, SumsOfColumns& sums) {
    for (int i = 0; i < n; ++i) add_block(columns[i], rows[i], sums);
  }
};

// --- both ---

void configure_integers(int n_bytes) {
  volatile TileShapes shapes = {};
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    const bool is_columns = i == 4, is_rows = i == 6 || i == 7;
    shapes.bytes_of_row[i] = static_cast<uint16_t>(is_columns ? n_bytes : tinker::kLine);
    shapes.n_rows[i] = static_cast<uint8_t>(is_rows ? n_bytes / 4 : kSide);
  }
  configure_tiles(shapes);
}

// `n_numbers` of sixteen columns from k on. Columns behind the last are the last one's once more.
template <class Form, size_t bytes_of_stretch>
void unpack_columns(const Weights& weights, int64_t first, int n, int64_t k, int n_numbers,
                    typename Form::Columns* to) {
  for (int c = 0; c < kSide; ++c) {
    const char* row = weights.data + static_cast<size_t>(first + (c < n ? c : n - 1)) * weights.stride;
    const auto* from = reinterpret_cast<const uint8_t*>(row) + static_cast<size_t>(k / tinker::kStretch) * bytes_of_stretch;
    for (size_t i = 0; i < bytes_of_stretch; i += tinker::kLine) __builtin_prefetch(from + kSide * weights.stride + i);
    for (int i = 0; i < n_numbers; i += tinker::kStretch, from += bytes_of_stretch) {
      const int left = n_numbers - i < tinker::kStretch ? n_numbers - i : tinker::kStretch;
      Form::unpack(from, left / kStep, c, to + i / Form::kNumbers);
    }
  }
}

// All blocks with sixteen columns, of which n are wanted; `sums` has those of each block.
template <class Form>
void multiply_blocks(const typename Form::Columns* columns, int64_t k, int n_numbers, const tinker::BlockRow* rows,
                     int n_rows, SumsOfColumns* sums) {
  for (int r = 0; r < n_rows; r += kSide, ++sums) {
    if (k == 0) memset(*sums, 0, sizeof *sums);
    const auto* block = static_cast<const typename Form::Rows*>(rows[r].block) + k / Form::kNumbers;
    Form::add(columns, block, n_numbers / Form::kNumbers, *sums);
  }
}

// As many columns as scratch memory has room for.
template <class Form, size_t bytes_of_stretch>
void multiply_columns(const Weights& weights, int64_t first, int n_columns, const tinker::BlockRow* rows, int n_rows,
                      float* scratch) {
  using Columns = typename Form::Columns;
  constexpr int n_of_panel = kIntegerDepth / Form::kNumbers;
  static_assert(sizeof(Columns) % tinker::kLine == 0 && sizeof(typename Form::Rows) % tinker::kLine == 0);
  static_assert(sizeof(Columns) * n_of_panel <= tinker::kIntegerPanel * sizeof(float));
  auto* columns = reinterpret_cast<Columns*>(tinker::on_line(scratch));
  auto* sums = reinterpret_cast<SumsOfColumns*>(columns + n_of_panel);
  const int n_blocks = (n_rows + kSide - 1) / kSide;
  for (int64_t k = 0; k < weights.size; k += kIntegerDepth) {
    const int n_numbers = static_cast<int>(weights.size - k < kIntegerDepth ? weights.size - k : kIntegerDepth);
    for (int c = 0; c < n_columns; c += kSide) {
      unpack_columns<Form, bytes_of_stretch>(weights, first + c, n_columns - c, k, n_numbers, columns);
      multiply_blocks<Form>(columns, k, n_numbers, rows, n_rows, sums + c / kSide * n_blocks);
    }
  }
  for (int c = 0; c < n_columns; c += kSide) {
    for (int r = 0; r < n_rows; r += kSide, ++sums) {
      write_tile(**sums, rows + r, n_rows - r < kSide ? n_rows - r : kSide, first + c, n_columns - c);
    }
  }
}

template <class Form, size_t bytes_of_stretch>
void multiply_integers(const Weights& weights, int64_t first, int n_columns, const tinker::BlockRow* rows, int n_rows,
                       float* scratch) {
  configure_integers(Form::kBytesOfTile);
  for (int c = 0; c < n_columns; c += tinker::kIntegerColumns) {
    const int n = n_columns - c < tinker::kIntegerColumns ? n_columns - c : tinker::kIntegerColumns;
    multiply_columns<Form, bytes_of_stretch>(weights, first + c, n, rows, n_rows, scratch);
  }
  release_tiles();
}

template <class Type, class Form>
constexpr tinker::IntegerProduct integer_product(tinker::Place place) {
  return {Type::kType, Form::kNumbers, sizeof(typename Form::Rows), place,
          multiply_integers<Form, tinker::kStretch / Type::kSize * Type::kBytes>};
}

template <class Type>
constexpr tinker::IntegerProduct groups() {
  return integer_product<Type, Groups<Type>>(place_groups);
}

template <class Type>
constexpr tinker::IntegerProduct super_blocks() {
  return integer_product<Type, SuperBlocks<Type>>(place_super_blocks);
}

const tinker::IntegerProduct* find_integer_product(int32_t type) {
  static constexpr tinker::IntegerProduct table[] = {
      groups<Q4_0>(),       groups<Q4_1>(),       groups<Q5_0>(),       groups<Q5_1>(),       groups<Q8_0>(),
      groups<IQ4_NL>(),     groups<IQ4_XS>(),     groups<MXFP4>(),      super_blocks<Q2_K>(), super_blocks<Q3_K>(),
      super_blocks<Q4_K>(), super_blocks<Q5_K>(), super_blocks<Q6_K>(),
  };
  for (const tinker::IntegerProduct& entry : table) {
    if (entry.type == type) return &entry;
  }
  return nullptr;
}
