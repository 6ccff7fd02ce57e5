// Softmax over the products of queries and keys, and what a row of attention keeps from block to block. Over `Lanes`
// (see exponential_kernels.hpp), load_half, and sum and maximum over the lanes. How products are computed is up to a
// `Tile` (attention_kernels.hpp, simd_amx_attention.cpp).
//
// Rows of queries form a tile. A tile goes through the positions once, 64 at a time, and keeps for each row
// the largest product so far, the total of the weights and the weighted values, both relative to that largest
// product. So softmax needs no second pass (Milakov and Gimelshein, 2018; Dao et al., "FlashAttention",
// 2022). Keys and values are fetched from their cells for all neighbouring rows that see the same ones.
//
// A row's numbers do not depend on the rows beside it. Rows share the loads of keys and values and nothing
// else. What a row does not see has weight 0, and adding 0 times a finite number changes nothing. So where a
// row sees some cells of a block, all of them can be computed; where it sees none, none need be.

inline float larger(float a, float b) { return a > b ? a : b; }

inline int whole_lanes(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

// exp(difference), as the weights are computed.
inline float exp_of(float difference) {
  float lanes[kLanes];
  store(lanes, exp2(all(difference * tinker::kLog2E)));
  return lanes[0];
}

// What a row has of some cells: the weighted values summed, and behind them the weights summed, in lanes, and the
// largest product. Sums are relative to the largest product.
struct Sums {
  float* values;
  float* weights;
  float& largest;

  Sums(float* at, int width) : values(at), weights(at + width), largest(at[width + kLanes]) {}

  void clear(int width) const {
    for (int i = 0; i < width; i += kLanes) store(values + i, all(0.0f));
    store(weights, all(0.0f));
    largest = kNegativeInfinity;
  }

  // Makes them relative to another product.
  void refer_to(float now, int width) const {
    const Lanes factor = all(exp_of(largest - now));
    for (int i = 0; i < width; i += kLanes) store(values + i, load(values + i) * factor);
    store(weights, load(weights) * factor);
    largest = now;
  }
};

inline size_t part_size(int value_size) { return whole_lanes(value_size) + 2 * kLanes; }

// Some positions of a block: from `begin` to before `end`.
struct Span {
  int begin, end;

  // In whole lanes.
  int first_lane() const { return begin / kLanes * kLanes; }
  int last_lane() const { return whole_lanes(end); }
};

// Which positions of a block a row sees, if all of those between are held.
inline Span span_of(const tinker::SeenCells& seen, int64_t block) {
  const int64_t start = block * tinker::kKeys, stop = seen.last + 1 - start;
  return {static_cast<int>(seen.first > start ? seen.first - start : 0),
          static_cast<int>(stop < tinker::kKeys ? stop : tinker::kKeys)};
}

// What neighbouring rows see of a block, taken together.
inline Span span_of(const tinker::AttentionRow* rows, int first, int last, int64_t block) {
  Span span = span_of(*rows[first].seen, block);
  for (int r = first + 1; r < last; ++r) {
    const Span other = span_of(*rows[r].seen, block);
    span = {other.begin < span.begin ? other.begin : span.begin, other.end > span.end ? other.end : span.end};
  }
  return span;
}

// What queries are multiplied by first.
inline float scale_of_queries(const tinker::AttentionCells& cells) {
  return cells.soft_cap != 0 ? cells.scale / cells.soft_cap : cells.scale;
}

// The mask of a block for one row in float32; null where all of it is seen and plain.
inline const float* read_mask(const tinker::AttentionRow& row, const tinker::CellBlock& block, Span span,
                              float* mask) {
  constexpr int n = tinker::kKeys;
  if (row.seen->is_plain) {
    if (block.n_cells == n && span.begin == 0 && span.end == n) return nullptr;
    for (int i = 0; i < n; ++i) {
      const bool is_seen = (i >= span.begin) & (i < span.end) & (block.cells[i] >= 0);
      mask[i] = is_seen ? 0.0f : kNegativeInfinity;
    }
    return mask;
  }
  uint16_t halves[n];
  for (int i = 0; i < n; ++i) halves[i] = block.cells[i] < 0 ? 0 : row.mask[block.cells[i]];
  for (int i = 0; i < n; i += kLanes) store(mask + i, load_half(halves + i));
  for (int i = 0; i < n; ++i) {
    const bool is_seen = i >= span.begin && i < span.end && block.cells[i] >= 0;
    mask[i] = is_seen ? mask[i] * row.slope : kNegativeInfinity;
  }
  return mask;
}

inline void cap(float* products, Span span, float soft_cap) {
  for (int i = span.begin; i < span.end; ++i) products[i] = soft_cap * tanhf(products[i]);
}

// Weights of a row for the positions of a block.
constexpr int kLanesOfBlock = tinker::kKeys / kLanes;
using BlockWeights = Lanes[kLanesOfBlock];

// Turns a row's products, with their mask, into weights exp(product - largest). Where this block has a larger product
// than those before, the row's sums so far are made relative to it first.
inline void weigh(const float* products, const float* mask, const Sums& sums, int width, BlockWeights& weights) {
  Lanes most = all(kNegativeInfinity);
  for (int i = 0; i < kLanesOfBlock; ++i) {
    weights[i] = load(products + i * kLanes);
    if (mask) weights[i] = weights[i] + load(mask + i * kLanes);
    most = max(weights[i], most);
  }
  const float now = larger(sums.largest, maximum(most));
  if (now == kNegativeInfinity) {  // nothing seen yet
    for (Lanes& weight : weights) weight = all(0.0f);
    return;
  }
  if (now != sums.largest) sums.refer_to(now, width);
  Lanes total = load(sums.weights);
  for (Lanes& weight : weights) {
    weight = exp2((weight - all(now)) * all(tinker::kLog2E));
    total = total + weight;
  }
  store(sums.weights, total);
}

// Adds the sums of a part to those of the parts before it.
inline void join(const Sums& part, const Sums& whole, int width) {
  if (part.largest == kNegativeInfinity) return;  // no cell of it was seen
  const float now = larger(whole.largest, part.largest);
  const Lanes old = all(exp_of(whole.largest - now)), fresh = all(exp_of(part.largest - now));
  const auto add = [&](float* to, const float* from) { store(to, fma(load(from), fresh, load(to) * old)); };
  for (int i = 0; i < width; i += kLanes) add(whole.values + i, part.values + i);
  add(whole.weights, part.weights);
  whole.largest = now;
}

// The output of a row, once all cells were seen.
inline void finish(const Sums& whole, int value_size, const tinker::AttentionRow& row) {
  float factor = 1, total = sum(load(whole.weights));
  if (row.sink) {
    const float now = larger(whole.largest, *row.sink);
    factor = exp_of(whole.largest - now);
    total = total * factor + exp_of(*row.sink - now);
  }
  factor = total == 0 ? 0 : factor / total;
  for (int d = 0; d < value_size; ++d) row.output[d] = whole.values[d] * factor + 0.0f;
}

// Some neighbouring rows at work on a block, and what they see of it.
struct RowsOfBlock {
  const tinker::AttentionCells& cells;
  const tinker::AttentionRow* rows;
  const tinker::CellBlock& block;
  int64_t number;
  int first, last;  // from the first to before the last
  Span span;
};

// Turns the products of rows with a block, 64 a row, into weights, which `write` takes together with their row's number
// among these. Heads of one token are neighbours, and share a mask.
template <class Tile, class Write>
inline void weigh_rows(const RowsOfBlock& at, float* products, Tile& tile, Write write) {
  float memory[tinker::kKeys];
  const float* mask = nullptr;
  const tinker::AttentionRow* rows = at.rows;
  for (int r = at.first; r < at.last; ++r, products += tinker::kKeys) {
    if (r == at.first || rows[r].seen != rows[r - 1].seen || rows[r].slope != rows[r - 1].slope) {
      mask = read_mask(rows[r], at.block, span_of(*rows[r].seen, at.number), memory);
    }
    if (at.cells.soft_cap != 0) cap(products, at.span, at.cells.soft_cap);
    BlockWeights weights;
    weigh(products, mask, tile.part_of(r), tile.value_width, weights);
    write(weights, r - at.first);
  }
}

// The sums of a part of the positions, in tile.part.
template <class Tile>
inline void attend_positions(const tinker::AttentionCells& cells, const tinker::AttentionRow* rows, int64_t part,
                             Tile& tile) {
  for (int r = 0; r < tile.n_rows; ++r) tile.part_of(r).clear(tile.value_width);
  constexpr int n_blocks = tinker::kPart / tinker::kKeys;
  for (int64_t number = part * n_blocks; number < (part + 1) * n_blocks; ++number) {
    for (int r = 0, first; r < tile.n_rows;) {
      const tinker::CellBlock* block = rows[first = r].seen->block(number);
      do ++r;
      while (r < tile.n_rows && rows[r].seen->block(number) == block);
      if (block) tile.attend({cells, rows, *block, number, first, r, span_of(rows, first, r, number)});
    }
  }
}

// Attention of a tile of rows.
template <class Tile>
inline void attend_with(Tile tile, const tinker::AttentionCells& cells, const tinker::AttentionRow* rows) {
  int32_t first = rows[0].seen->first, last = -1;
  for (int r = 0; r < tile.n_rows; ++r) {
    tile.whole_of(r).clear(tile.value_width);
    if (rows[r].seen->first < first) first = rows[r].seen->first;
    if (rows[r].seen->last > last) last = rows[r].seen->last;
  }
  for (int part = first / tinker::kPart; part * tinker::kPart <= last; ++part) {
    attend_positions(cells, rows, part, tile);
    for (int r = 0; r < tile.n_rows; ++r) join(tile.part_of(r), tile.whole_of(r), tile.value_width);
  }
  for (int r = 0; r < tile.n_rows; ++r) finish(tile.whole_of(r), cells.value_size, rows[r]);
}

// One part of it, to `sums`: (rows, part_size).
template <class Tile>
inline void attend_part_with(Tile tile, const tinker::AttentionCells& cells, const tinker::AttentionRow* rows,
                             int part, float* sums) {
  tile.part = sums;
  attend_positions(cells, rows, part, tile);
}
