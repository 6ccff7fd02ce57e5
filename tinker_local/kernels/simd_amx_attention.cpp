// Attention in AMX's tiles. Queries and weights are two numbers of bfloat16 each, with sixteen bits together. So are
// keys and values, which keep all bits of float16. Of the four products of two such sums, that of both lower parts is
// left out: at most 2^-18 of the whole.
//
// Sixteen rows of queries, or of weights, are a tile. The columns of another tile are sixteen positions of keys, or
// sixteen numbers of values. It has neighbours in pairs: numbers of a key, or positions of values.
#include "amx_attention.hpp"

#if defined(TINKER_LOCAL_EMULATE_AMX) || (defined(TINKER_LOCAL_AMX) && defined(__AVX512F__))
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "simd_path.hpp"

namespace {

#include "tile_shapes.hpp"
#if defined(TINKER_LOCAL_EMULATE_AMX)
#include "avx2.hpp"
#include "emulated_tiles.hpp"
#else
#include "avx512.hpp"
#include "avx512_transpose.hpp"
#include "tiles.hpp"
#endif
#include "bfloat_parts.hpp"
#include "exponential_kernels.hpp"
#include "attention_sums.hpp"

using tinker::kKeys;
using tinker::kLine;
using tinker::kMostRows;

constexpr int kParts = 2 * kTile;  // of a tile in two parts, one behind the other
constexpr int kTogether = 4;       // tiles of sums

// Tiles 0 to 3 are sums, 4 and 5 the parts of rows, 6 and 7 those of columns.
void configure(int n_rows) {
  volatile TileShapes shapes = {};  // GCC 12 drops what is written to it otherwise
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.bytes_of_row[i] = kLine;
    shapes.n_rows[i] = static_cast<uint8_t>(i < 6 ? n_rows : kSide);
  }
  configure_tiles(shapes);
}

// Products of rows with up to four tiles of columns, in steps of 32 numbers; added to the sums that are there, if so.
// Of rows and columns, the lower part lies behind the upper one, and the next step behind both.
struct TiledProducts {
  const uint16_t *rows, *columns;
  int64_t to_lower_rows, to_next_columns;
  int n_steps, n_columns;
  float* sums;
  int64_t stride;  // bytes
  bool adds;
  int column = 0;  // the next one

#define BEGIN_SUMS(tile)                            \
  if (n_columns > tile) {                           \
    if (adds) {                                     \
      LOAD_TILE(tile, sums + tile * kSide, stride); \
    } else {                                        \
      CLEAR_TILE(tile);                             \
    }                                               \
  }
#define END_SUMS(tile) \
  if (n_columns > tile) STORE_TILE(tile, sums + tile * kSide, stride);
#define ADD_COLUMNS(tile)            \
  LOAD_TILE(6, from, kLine);         \
  ADD_PRODUCTS(tile, 4, 6);          \
  ADD_PRODUCTS(tile, 5, 6);          \
  LOAD_TILE(7, from + kTile, kLine); \
  ADD_PRODUCTS(tile, 4, 7);

  void begin() const { BEGIN_SUMS(0) BEGIN_SUMS(1) BEGIN_SUMS(2) BEGIN_SUMS(3) }

  // One step with one tile of columns; false after the last.
  bool add_next() {
    if (column == 0) {
      LOAD_TILE(4, rows, kLine);
      LOAD_TILE(5, rows + to_lower_rows, kLine);
    }
    const uint16_t* from = columns + column * to_next_columns;
    switch (column) {
      case 0: ADD_COLUMNS(0) break;
      case 1: ADD_COLUMNS(1) break;
      case 2: ADD_COLUMNS(2) break;
      default: ADD_COLUMNS(3)
    }
    if (++column < n_columns) return true;
    column = 0;
    rows += 2 * to_lower_rows;
    columns += kParts;
    if (--n_steps) return true;
    END_SUMS(0) END_SUMS(1) END_SUMS(2) END_SUMS(3)
    return false;
  }

#undef BEGIN_SUMS
#undef END_SUMS
#undef ADD_COLUMNS
};

// Sixteen of a row's numbers, of which n are there.
inline Lanes load_halves(const uint16_t* from, int n) {
  if (n >= kLanes) return load_half(from);
  uint16_t padded[kLanes] = {};
  if (n > 0) memcpy(padded, from, static_cast<size_t>(n) * sizeof *from);
  return load_half(padded);
}

inline int whole_steps(int n) { return (n + kStep - 1) / kStep; }

// The positions of a block that are read, each from its cell. What is not seen is zero.
struct Cells {
  const char* data;
  size_t stride;
  const tinker::CellBlock& block;
  Span span;

  const uint16_t* at(int position) const {
    const bool is_there = position >= span.begin && position < span.end;
    const int32_t cell = is_there ? block.cells[position] : tinker::CellBlock::kNone;
    return cell < 0 ? nullptr : reinterpret_cast<const uint16_t*>(data + static_cast<size_t>(cell) * stride);
  }
};

// Step number `step` of the keys of sixteen positions.
inline void read_keys(const Cells& cells, int first, int step, int key_size, uint16_t* tiles) {
  alignas(kLine) uint16_t high[kSide][kStep], low[kSide][kStep];
  const int n = key_size - step * kStep;
  for (int i = 0; i < kSide; ++i) {
    const uint16_t* key = cells.at(first + i);
    if (key) {
      key += step * kStep;
      split(load_halves(key, n), load_halves(key + kLanes, n - kLanes), high[i], low[i]);
    } else {
      memset(high[i], 0, sizeof high[i]);
      memset(low[i], 0, sizeof low[i]);
    }
  }
  transpose16(reinterpret_cast<float*>(high), kSide, reinterpret_cast<float*>(tiles), kSide);
  transpose16(reinterpret_cast<float*>(low), kSide, reinterpret_cast<float*>(tiles + kTile), kSide);
}

// The values of two positions, for one row of tiles; from tile to tile it is `next` numbers.
inline void read_values(const Cells& cells, int first, int value_size, uint16_t* row, int64_t next) {
  const uint16_t *x = cells.at(first), *y = cells.at(first + 1);
  for (int i = 0; i < value_size; i += kLanes, row += next) {
    const Lanes a = x ? load_halves(x + i, value_size - i) : all(0.0f);
    const Lanes b = y ? load_halves(y + i, value_size - i) : all(0.0f);
    split_pairs(a, b, row, row + kTile);
  }
}

constexpr int kTilesOfKeys = kKeys / kSide, kStepsOfValues = kKeys / kStep;

// A tile of rows at work (see attention_sums.hpp). The arrays are in scratch memory. Rows are computed in lots of
// sixteen, of which two have products and weights at a time.
struct RowsInTiles {
  int n_rows, key_size, value_size, value_width, stride, n_steps;
  float* part;         // (rows, stride), sums of a part
  float* whole;        // (rows, stride), sums of the parts so far
  float* products;     // (2 lots, 16, 64), of queries and keys
  uint16_t* weights;   // (2 lots, steps of values, 2 parts, tile)
  uint16_t* queries;   // (steps, 2 parts, rows, 32), scaled
  uint16_t* keys;      // (tiles of keys, steps, 2 parts, tile)
  uint16_t* values;    // (tiles of values, steps of values, 2 parts, tile)
  int configured = 0;  // rows of the tiles

  RowsInTiles(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int n_rows, float* scratch)
      : n_rows(n_rows), key_size(cells.key_size), value_size(cells.value_size), value_width(whole_lanes(value_size)),
        stride(static_cast<int>(part_size(value_size))), n_steps(whole_steps(key_size)) {
    part = tinker::on_line(scratch);
    whole = part + kMostRows * stride;
    products = whole + kMostRows * stride;
    weights = reinterpret_cast<uint16_t*>(products + 2 * kProducts);
    queries = weights + 2 * kWeights;
    keys = queries + n_steps * kQueries;
    values = keys + n_steps * kTilesOfKeys * kParts;
    read_queries(rows, scale_of_queries(cells));
  }

  static size_t n_floats(int key_size, int value_size) {
    const auto n_steps = static_cast<size_t>(whole_steps(key_size));
    const auto n_tiles = static_cast<size_t>(whole_lanes(value_size) / kSide);
    const size_t of_sums = 2 * kMostRows * part_size(value_size) + 2 * kProducts;
    const size_t numbers = 2 * kWeights + n_steps * (kQueries + kTilesOfKeys * kParts) + n_tiles * kWeights;
    return of_sums + numbers * sizeof(uint16_t) / sizeof(float) + kLine / sizeof(float);
  }

  Sums part_of(int r) { return {part + r * stride, value_width}; }
  Sums whole_of(int r) { return {whole + r * stride, value_width}; }

  // While the weights of a lot are computed, so are the products of the next lot with keys, and those of the lot before
  // with values. So tiles never wait for what was just written, nor vectors for tiles.
  void attend(const RowsOfBlock& at) {
    const int n = (at.last - at.first + kSide - 1) / kSide;
    read_keys(at);
    Queue(*this, at, 0, kNone).finish();
    read_values(at);
    for (int i = 0; i < n; ++i) {
      Queue queue(*this, at, i + 1 < n ? i + 1 : kNone, i > 0 ? i - 1 : kNone);
      weigh(lot(at, i), queue);
      queue.finish();
    }
    Queue(*this, at, kNone, n - 1).finish();
  }

 private:
  static constexpr int kNone = -1;
  static constexpr int kProducts = kSide * kKeys, kWeights = kStepsOfValues * kParts, kQueries = 2 * kMostRows * kStep;

  void read_queries(const tinker::AttentionRow* rows, float scale) {
    for (int r = 0; r < n_rows; ++r) {
      uint16_t* to = queries + r * kStep;
      for (int d = 0; d < key_size; d += kStep, to += kQueries) {
        float padded[kStep] = {};
        for (int i = 0; i < std::min(kStep, key_size - d); ++i) padded[i] = rows[r].query[d + i] * scale;
        split(load(padded), load(padded + kLanes), to, to + kMostRows * kStep);
      }
    }
  }

  void read_keys(const RowsOfBlock& at) {
    const Cells cells{at.cells.keys, at.cells.key_stride, at.block, at.span};
    for (int i = at.span.first_lane(); i < at.span.last_lane(); i += kSide) {
      uint16_t* tiles = keys + i / kSide * n_steps * kParts;
      for (int step = 0; step < n_steps; ++step) ::read_keys(cells, i, step, key_size, tiles + step * kParts);
    }
  }

  void read_values(const RowsOfBlock& at) {
    const Cells cells{at.cells.values, at.cells.value_stride, at.block, at.span};
    for (int i = at.span.begin / kStep * kStep; i < whole_steps(at.span.end) * kStep; i += 2) {
      ::read_values(cells, i, value_size, values + i / kStep * kParts + i % kStep * kSide, kWeights);
    }
  }

  struct Lot : RowsOfBlock {
    int n;
    float* products;
    uint16_t* weights;
  };

  Lot lot(const RowsOfBlock& at, int number) const {
    Lot lot{at, 0, products + number % 2 * kProducts, weights + number % 2 * kWeights};
    lot.first += number * kSide;
    lot.last = std::min(lot.first + kSide, at.last);
    lot.n = lot.last - lot.first;
    return lot;
  }

  TiledProducts products_with_keys(const Lot& lot) const {
    const int first = lot.span.first_lane(), n = lot.span.last_lane() - first;
    if (n < kKeys) std::fill_n(lot.products, lot.n * kKeys, 0.0f);
    return {queries + lot.first * kStep, keys + first / kSide * n_steps * kParts, kMostRows * kStep, n_steps * kParts,
            n_steps, n / kSide, lot.products + first, kKeys * sizeof(float), false};
  }

  // With four tiles of values.
  TiledProducts products_with_values(const Lot& lot, int four) const {
    const int first = lot.span.begin / kStep, tile = four * kTogether;
    return {lot.weights + first * kParts, values + tile * kWeights + first * kParts, kTile, kWeights,
            whole_steps(lot.span.end) - first, std::min(kTogether, value_width / kSide - tile),
            part + lot.first * stride + tile * kSide, stride * static_cast<int64_t>(sizeof(float)), true};
  }

  // The products of one lot with keys, then those of another with values.
  class Queue {
   public:
    Queue(RowsInTiles& tile, const RowsOfBlock& at, int with_keys, int with_values)
        : tile_(tile), at_(at), with_keys_(with_keys), with_values_(with_values) {}

    // Computes n of them: each is one step with one tile of columns.
    void advance(int n) {
      for (; n && (runs_ || begin_next()); --n) runs_ = products_.add_next();
    }

    void finish() {
      while (runs_ || begin_next()) runs_ = products_.add_next();
    }

   private:
    bool begin_next() {
      if (with_keys_ != kNone) {
        products_ = tile_.products_with_keys(begin(with_keys_));
        with_keys_ = kNone;
      } else if (with_values_ != kNone) {
        products_ = tile_.products_with_values(begin(with_values_), four_++);
        if (four_ * kTogether * kSide >= tile_.value_width) with_values_ = kNone;
      } else {
        return false;
      }
      products_.begin();
      return true;
    }

    Lot begin(int number) {
      const Lot lot = tile_.lot(at_, number);
      if (lot.n != tile_.configured) configure(tile_.configured = lot.n);
      return lot;
    }

    RowsInTiles& tile_;
    const RowsOfBlock& at_;
    int with_keys_, with_values_, four_ = 0;
    bool runs_ = false;
    TiledProducts products_;
  };

  void weigh(const Lot& lot, Queue& queue) {
    const int n_queued = kTilesOfKeys * n_steps + kStepsOfValues * value_width / kSide;
    const int n_of_row = (n_queued + lot.n - 1) / lot.n;
    weigh_rows(lot, lot.products, *this, [&](const BlockWeights& weights, int r) {
      for (int step = 0; step < kStepsOfValues; ++step) {
        uint16_t* to = lot.weights + step * kParts + r * kStep;
        split(weights[2 * step], weights[2 * step + 1], to, to + kTile);
      }
      queue.advance(n_of_row);
    });
  }
};

}  // namespace

size_t tinker::amx::attention_scratch(int key_size, int value_size) {
  return RowsInTiles::n_floats(key_size, value_size);
}

void tinker::amx::attend(const AttentionCells& cells, const AttentionRow* rows, int n_rows, float* scratch) {
  attend_with(RowsInTiles(cells, rows, n_rows, scratch), cells, rows);
  release_tiles();
}

void tinker::amx::attend_part(const AttentionCells& cells, const AttentionRow* rows, int n_rows, int part,
                              float* scratch, float* sums) {
  attend_part_with(RowsInTiles(cells, rows, n_rows, scratch), cells, rows, part, sums);
  release_tiles();
}
#endif
