// AMX: products with weights of bfloat16, and of many rows with packed weights (tiled_packed_kernels.hpp), in tiles;
// and attention over cells of float16 (simd_amx_attention.cpp). Everything else is as with AVX-512: weights of float16
// would lose three of their bits, and those of float32 more.
//
// Weights of bfloat16: sixteen columns are the rows of a tile. They lie in a file as the instruction wants them, 32
// numbers of a column side by side. So they are read from where they are, if rows are few. Otherwise they are copied to
// a panel first, tile by tile. Sixteen rows of activations are the columns of the other tile, in pairs of numbers. Sums
// have columns for rows then, and are transposed last. They go over all k in order, whatever is computed beside them;
// where k is long, they are kept in memory from one panel to the next.
//
// bfloat16 has eight bits. So activations are two numbers of bfloat16. What is no number gives infinity or NaN in its
// row or column, and nothing elsewhere.
//
// A thread's tiles are configured within a task and released at its end: torch in the same process may use its own.
#include "amx_attention.hpp"
#include "bfloat_table.hpp"
#include "simd_path.hpp"

#if defined(TINKER_LOCAL_EMULATE_AMX) || (defined(TINKER_LOCAL_AMX) && defined(__AVX512F__))
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

namespace {

using tinker::BfloatTable;

#include "tile_shapes.hpp"
#if defined(TINKER_LOCAL_EMULATE_AMX)
#include "avx2.hpp"
#include "emulated_tiles.hpp"
#include "emulated_avx512_tiles.hpp"
#else
#include "avx512.hpp"
#include "avx512_tiles.hpp"
#include "tiles.hpp"
#endif
#include "bfloat_parts.hpp"
#include "weight_kernels.hpp"

using tinker::kStripColumns;
using tinker::kTiledRows;
using tinker::TiledRow;
using tinker::Weights;

constexpr int kSums = kSide * kSide;  // floats of a tile of sums

// What the path is but for products in tiles.
const tinker::SimdPath* base() {
  const tinker::SimdPath* avx512 = tinker::avx512_path();
#if defined(TINKER_LOCAL_EMULATE_AMX)
  return avx512 ? avx512 : tinker::avx2_path();
#else
  return avx512;
#endif
}

// Numbers from one pair of a row to the next, and from one tile of its block to the next: nearest ones, then what is
// left of them.
inline int64_t of_pair(const TiledRow& row) { return 2 * row.n_together; }
inline int64_t of_tile(const TiledRow& row) { return kStep * row.n_together; }

// 32 numbers of each row of a block.
using Step = uint16_t[kSide][kStep];

inline void split(const float* x, int64_t n, uint16_t (&high)[kStep], uint16_t (&low)[kStep]) {
  float padded[kStep] = {};
  if (n < kStep) {
    memcpy(padded, x, static_cast<size_t>(n) * sizeof *x);
    x = padded;
  }
  split_any(load(x), load(x + kStep / 2), high, low);
}

// Pairs of neighbours from row after row to side by side: a tile of n rows.
inline void place(const Step& step, int64_t n, uint16_t* tile) {
  const auto* pairs = reinterpret_cast<const float*>(step);
  if (n == kSide) return transpose16(pairs, kSide, reinterpret_cast<float*>(tile), kSide);
  float turned[kSide][kSide], together[kSide * kSide];
  transpose16(pairs, kSide, turned[0], kSide);
  for (int i = 0; i < kSide; ++i) memcpy(together + i * n, turned[i], sizeof turned[i]);
  memcpy(tile, together, static_cast<size_t>(kSide * n) * sizeof *together);
}

// With zeros up to whole steps.
void split_block(const float* const* x, int64_t n, const TiledRow& row) {
  alignas(tinker::kLine) Step high = {}, low = {};
  uint16_t* to = row.numbers;
  for (int64_t k = 0; k < n; k += kStep, to += 2 * of_tile(row)) {
    for (int64_t r = 0; r < row.n_together; ++r) split(x[r] + k, n - k, high[r], low[r]);
    place(high, row.n_together, to);
    place(low, row.n_together, to + of_tile(row));
  }
}

// --- weights ---

// Where the weights of two tiles are; bytes from column to column, and from step to step.
struct TilePair {
  const char *first, *second;
  int64_t of_column, of_step;
  const char* ahead;  // weights that are fetched meanwhile; null if none
};

// Strips of some columns, `depth` numbers of each, in tiles. A tile's steps lie one behind the other.
struct Panel {
  uint16_t* tiles;
  int64_t n_steps;

  int64_t of_columns() const { return n_steps * kTile; }  // of sixteen

  // n columns; those behind the last are the last one's once more, and what is behind `depth` is zero.
  void copy(const Weights& weights, int64_t first, int n, int64_t k, int64_t depth) const {
    for (int c = 0; c < (n + kStripColumns - 1) / kStripColumns * kStripColumns; ++c) {
      const char* row = weights.data + static_cast<size_t>(first + (c < n ? c : n - 1)) * weights.stride;
      const auto* from = reinterpret_cast<const uint16_t*>(row) + k;
      uint16_t* to = tiles + c / kSide * of_columns() + c % kSide * kStep;
      for (int64_t i = 0; i < depth / kStep; ++i, from += kStep, to += kTile) memcpy(to, from, kStep * sizeof *to);
      if (depth % kStep == 0) continue;
      memset(to, 0, kStep * sizeof *to);
      memcpy(to, from, static_cast<size_t>(depth % kStep) * sizeof *to);
    }
  }

  TilePair strip(int number) const {
    const auto* first = reinterpret_cast<const char*>(tiles + 2 * number * of_columns());
    return {first, first + 2 * of_columns(), 2 * kStep, 2 * kTile, nullptr};
  }
};

// --- products ---

// Tiles 0 and 1 are the sums of two tiles of columns with a block of rows, 2 and 3 those with another block. Tiles 4
// and 5 are weights, 6 and 7 activations of the two blocks.
void configure(int n_rows, int n_of_second) {
  volatile TileShapes shapes = {};  // GCC 12 drops what is written to it otherwise
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    const bool is_weights = i == 4 || i == 5, is_second = i == 2 || i == 3 || i == 7;
    shapes.bytes_of_row[i] = static_cast<uint16_t>(4 * (is_weights ? kSide : is_second ? n_of_second : n_rows));
    shapes.n_rows[i] = kSide;
  }
  configure_tiles(shapes);
}

// One block of rows or two: their tiles from some k on.
template <int kBlocks>
struct Blocks {
  const uint16_t* x[kBlocks];
  int64_t low[kBlocks], stride[kBlocks];

  Blocks(const TiledRow* rows, int64_t k) {
    for (int b = 0; b < kBlocks; ++b) {
      const TiledRow& row = rows[b * kSide];
      low[b] = of_tile(row);
      stride[b] = 2 * of_pair(row);
      x[b] = row.numbers + k / kStep * 2 * low[b];
    }
  }

  void next() {
    for (int b = 0; b < kBlocks; ++b) x[b] += 2 * low[b];
  }
};

#define ADD_TILE(from, stride, x, sums, other_sums) \
  LOAD_TILE(x, from, stride);                       \
  ADD_PRODUCTS(sums, 4, x);                         \
  ADD_PRODUCTS(other_sums, 5, x);

// Adds the products of a strip with all blocks.
template <int kBlocks>
inline void multiply_steps(TilePair w, Blocks<kBlocks> blocks, int64_t n_steps) {
  constexpr int second = kBlocks - 1;
  for (; n_steps; --n_steps, w.first += w.of_step, w.second += w.of_step, blocks.next()) {
    LOAD_TILE(4, w.first, w.of_column);
    LOAD_TILE(5, w.second, w.of_column);
    ADD_TILE(blocks.x[0], blocks.stride[0], 6, 0, 1)
    ADD_TILE(blocks.x[0] + blocks.low[0], blocks.stride[0], 6, 0, 1)
    if constexpr (kBlocks == 2) {
      ADD_TILE(blocks.x[second], blocks.stride[second], 7, 2, 3)
      ADD_TILE(blocks.x[second] + blocks.low[second], blocks.stride[second], 7, 2, 3)
    }
    if (!w.ahead) continue;
    for (int c = 0; c < kStripColumns; ++c) __builtin_prefetch(w.ahead + c * w.of_column);
    w.ahead += w.of_step;
  }
}

#undef ADD_TILE

template <int kBlocks>
inline void begin_sums() {
  CLEAR_TILE(0);
  CLEAR_TILE(1);
  if constexpr (kBlocks == 2) {
    CLEAR_TILE(2);
    CLEAR_TILE(3);
  }
}

template <int kBlocks>
inline void load_sums(const float* sums) {
  LOAD_TILE(0, sums, tinker::kLine);
  LOAD_TILE(1, sums + kSums, tinker::kLine);
  if constexpr (kBlocks == 2) {
    LOAD_TILE(2, sums + 2 * kSums, tinker::kLine);
    LOAD_TILE(3, sums + 3 * kSums, tinker::kLine);
  }
}

template <int kBlocks>
inline void store_sums(float* sums) {
  STORE_TILE(0, sums, tinker::kLine);
  STORE_TILE(1, sums + kSums, tinker::kLine);
  if constexpr (kBlocks == 2) {
    STORE_TILE(2, sums + 2 * kSums, tinker::kLine);
    STORE_TILE(3, sums + 3 * kSums, tinker::kLine);
  }
}

// The sums of a tile to the outputs of a block: sixteen columns, or what is left of them.
template <class Row>
inline void write_tile(const float* sums, const Row* rows, int n_rows, int64_t column, int n) {
  alignas(tinker::kLine) float turned[kSums];
  transpose16(sums, kSide, turned, kSide);
  for (int r = 0; r < n_rows; ++r) {
    float* to = rows[r].output + column;
    if (n >= kSide) {
      memcpy(to, turned + r * kSide, kSide * sizeof *to);  // faster where the size is known
    } else {
      memcpy(to, turned + r * kSide, static_cast<size_t>(n) * sizeof *to);
    }
  }
}

// What is multiplied: n columns, a multiple of a strip's but for the last, with rows. Sums are kept in memory where
// they do not begin and end at once.
struct Task {
  const Weights& weights;
  int64_t first;
  int n;
  const TiledRow* rows;
  int n_rows;
  float* sums;

  int n_strips() const { return (n + kStripColumns - 1) / kStripColumns; }
  int n_pairs() const { return (n_rows + kTiledRows - 1) / kTiledRows; }  // of blocks
  float* memory_behind_sums() const { return sums + static_cast<size_t>(n_strips() * n_pairs()) * 4 * kSums; }
};

// Strip number s with the one or two blocks of rows from r on, and their numbers from k to `end`.
template <int kBlocks>
inline void multiply_strip(const Task& task, const TilePair& w, int s, int r, int64_t k, int64_t end) {
  float* sums = task.sums + static_cast<size_t>(r / kTiledRows * task.n_strips() + s) * 4 * kSums;
  if (k == 0) {
    begin_sums<kBlocks>();
  } else {
    load_sums<kBlocks>(sums);
  }
  multiply_steps<kBlocks>(w, Blocks<kBlocks>(task.rows + r, k), (end - k + kStep - 1) / kStep);
  if (end < task.weights.size) return store_sums<kBlocks>(sums);
  alignas(tinker::kLine) float found[4 * kSums];
  store_sums<kBlocks>(found);
  for (int b = 0; b < kBlocks; ++b, r += kSide) {
    const int n_rows = task.n_rows - r < kSide ? task.n_rows - r : kSide;
    for (int c = 0; c < 2; ++c) {
      const int column = s * kStripColumns + c * kSide;
      if (column >= task.n) break;
      write_tile(found + (2 * b + c) * kSums, task.rows + r, n_rows, task.first + column, task.n - column);
    }
  }
}

// All strips, which `strip_of` gives, with all rows.
template <class StripOf>
inline void multiply_all(const Task& task, StripOf strip_of, int64_t k, int64_t end) {
  int configured = 0;
  for (int r = 0; r < task.n_rows; r += kTiledRows) {
    const int n = task.n_rows - r < kTiledRows ? task.n_rows - r : kTiledRows;
    if (n != configured) configure(n < kSide ? n : kSide, n > kSide ? n - kSide : kSide);
    configured = n;
    for (int s = 0; s < task.n_strips(); ++s) {
      if (n > kSide) {
        multiply_strip<2>(task, strip_of(s), s, r, k, end);
      } else {
        multiply_strip<1>(task, strip_of(s), s, r, k, end);
      }
    }
  }
}

// Whole strips, from where they are. Meanwhile the next strip is fetched.
void multiply_directly(const Task& task) {
  const auto of_column = static_cast<int64_t>(task.weights.stride), of_strip = kStripColumns * of_column;
  const char* weights = task.weights.data + task.first * of_column;
  for (int64_t i = 0; i < of_strip; i += tinker::kLine) __builtin_prefetch(weights + i);
  const auto strip_of = [&](int s) -> TilePair {
    const char* first = weights + s * of_strip;
    const char* ahead = s + 1 < task.n_strips() ? first + of_strip : nullptr;
    return {first, first + kSide * of_column, of_column, kStep * sizeof(uint16_t), ahead};
  };
  multiply_all(task, strip_of, 0, task.weights.size);
}

void multiply_by_panels(const Task& task) {
  const int64_t size = task.weights.size, most = size <= 2 * tinker::kTiledDepth ? size : tinker::kTiledDepth;
  for (int64_t k = 0; k < size; k += most) {
    const int64_t end = size - k < most ? size : k + most;
    const Panel panel{reinterpret_cast<uint16_t*>(task.memory_behind_sums()), (end - k + kStep - 1) / kStep};
    panel.copy(task.weights, task.first, task.n, k, end - k);
    multiply_all(task, [&](int s) { return panel.strip(s); }, k, end);
  }
}

void multiply(const Weights& weights, int64_t first, int n_columns, const TiledRow* rows, int n_rows, float* scratch) {
  Task task{weights, first, 0, rows, n_rows, tinker::on_line(scratch)};
  if (n_rows <= kTiledRows && weights.size % kStep == 0) {
    task.n = n_columns / kStripColumns * kStripColumns;
    if (task.n) multiply_directly(task);
  }
  for (int done = task.n; done < n_columns; done += tinker::kTiledColumns) {
    task.first = first + done;
    task.n = n_columns - done < tinker::kTiledColumns ? n_columns - done : tinker::kTiledColumns;
    multiply_by_panels(task);
  }
  release_tiles();
}

tinker::Multiply<TiledRow> tiled_product(int32_t type) { return type == BF16::kType ? multiply : nullptr; }

#include "tiled_packed_kernels.hpp"

// --- attention ---

// Cells of other types have more bits than tiles would keep.
inline bool are_tiled(const tinker::AttentionCells& cells) {
  return cells.key_type == F16::kType && cells.value_type == F16::kType;
}

void attend(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows, float* scratch) {
  (are_tiled(cells) ? tinker::amx::attend : base()->attend)(cells, rows, n_rows, scratch);
}

void attend_part(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows, int part,
                 float* scratch, float* sums) {
  (are_tiled(cells) ? tinker::amx::attend_part : base()->attend_part)(cells, rows, n_rows, part, scratch, sums);
}

size_t attention_scratch(int key_size, int value_size) {
  const size_t in_tiles = tinker::amx::attention_scratch(key_size, value_size);
  return std::max(in_tiles, base()->attention_scratch(key_size, value_size));
}

#if defined(TINKER_LOCAL_EMULATE_AMX)
inline bool may_use_tiles() { return true; }
#else
// Whether this processor has AMX with bfloat16 and bytes, and AVX-512 with bfloat16, and Linux permits the use of
// tiles: Documentation/arch/x86/xstate.rst.
inline bool may_use_tiles() {
  constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM of XFEATURE_XTILEDATA
  constexpr unsigned needed = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
  constexpr unsigned needed_more = 1u << 5;                    // AVX512_BF16
  unsigned features, more, b, c, unused;
  return __get_cpuid_count(7, 0, &unused, &b, &c, &features) && (features & needed) == needed &&
         __get_cpuid_count(7, 1, &more, &b, &c, &unused) && (more & needed_more) &&
         syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#endif

bool is_permitted = false;

}  // namespace

bool tinker::request_amx() {
  static const bool answer = base() && may_use_tiles();
  return is_permitted = answer;
}

const tinker::SimdPath* tinker::amx_path() {
  if (!is_permitted) return nullptr;
  static const SimdPath path = [] {
    SimdPath result = *base();
    result.name = "amx";
    result.attend = attend;
    result.attend_part = attend_part;
    result.attention_scratch = attention_scratch;
    result.split_block = split_block;
    result.tiled_product = tiled_product;
    result.pack_group_block = pack_group_block;
    result.tiled_group_product = tiled_group_product;
    result.pack_super_block = pack_super_block;
    result.tiled_super_block_product = tiled_super_block_product;
    return result;
  }();
  return &path;
}
#else
bool tinker::request_amx() { return false; }
const tinker::SimdPath* tinker::amx_path() { return nullptr; }
#endif
