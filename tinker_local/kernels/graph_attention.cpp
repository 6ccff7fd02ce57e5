// A node of flash attention in tasks for llama.cpp's threads: tiles of rows and, where there are few tiles,
// parts of what they see.
#include "graph_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

#include "simd_path.hpp"

namespace {

using namespace tinker;
using ggml::Tensor;

constexpr int64_t kRows = 64;  // of a tile, where there are few

// max_bias > 0 is ALiBi: each head has a slope of its own (Press et al., 2022).
float slope_of(int64_t head, int64_t n_heads, float max_bias) {
  if (max_bias <= 0) return 1;
  const auto power = static_cast<float>(1 << static_cast<int>(std::log2(n_heads)));
  const float h = static_cast<float>(head);
  return h < power ? std::pow(2.0f, -max_bias / power * (h + 1))
                   : std::pow(2.0f, -max_bias / 2 / power * (2 * (h - power) + 1));
}

// A node's sources are queries, keys, values, the mask and the sinks. Dimensions of queries are, the
// fastest first: numbers, tokens, heads, streams; of keys and values: numbers, cells, heads, streams.
// Several heads of queries, a group, share one of keys and values.
class Attention {
 public:
  Attention(const Tensor& out, const ggml::FlashAttention& params, const SeenByTokens& seen)
      : out_(out), q_(*out.src[0]), k_(*out.src[1]), v_(*out.src[2]), mask_(mask_of(out)),
        sinks_(out.src[4]), params_(params), seen_(seen), group_(q_.ne[2] / k_.ne[2]),
        n_rows_(q_.ne[1] * group_) {}

  // The rows of a tile share what is read of cells. So there are many of them, where threads have several tiles then.
  void enlarge_tiles(int n_threads) {
    while (rows_of_tile_ < kMostRows && n_units() >= 16 * static_cast<int64_t>(n_threads)) rows_of_tile_ *= 2;
  }

  static Mask mask_of(const Tensor& out) {
    const Tensor *q = out.src[0], *k = out.src[1], *mask = out.src[3];
    if (!mask) return {nullptr, k->ne[1], q->ne[1], q->ne[3], 0, 0};
    return {mask->data, k->ne[1], q->ne[1], q->ne[3], mask->nb[1], mask->ne[3] > 1 ? mask->nb[3] : 0};
  }

  // Tiles of all key heads and streams.
  int64_t n_units() const { return n_tiles() * k_.ne[2] * q_.ne[3]; }
  int64_t n_parts() const { return seen_.n_parts(); }
  int64_t rows_of_unit() const { return std::min(rows_of_tile_, n_rows_); }
  size_t part_size() const {
    return rows_of_unit() * simd_path_in_use().part_size(static_cast<int>(v_.ne[0]));
  }

  // A unit is a tile: some rows of one key head in one stream. A row is a token and a head of its
  // group, the heads of a token side by side, for they see the same cells. The last tiles, which see the
  // most cells, come first, so that no thread is left with a long one at the end.
  struct Unit {
    AttentionRow rows[kMostRows];
    int n_rows;
    AttentionCells cells;
  };

  Unit unit(int64_t number) const {
    const int64_t tile = n_tiles() - 1 - number / (k_.ne[2] * q_.ne[3]);
    const int64_t head = number % k_.ne[2], stream = number / k_.ne[2] % q_.ne[3];
    const int64_t first = tile * rows_of_tile_;
    Unit unit;
    unit.n_rows = static_cast<int>(std::min(rows_of_tile_, n_rows_ - first));
    for (int i = 0; i < unit.n_rows; ++i) {
      const int64_t row = first + i;
      unit.rows[i] = this->row(row / group_, head * group_ + row % group_, stream);
    }
    const int64_t ks = stream / (q_.ne[3] / k_.ne[3]), vs = stream / (q_.ne[3] / v_.ne[3]);
    unit.cells = {k_.data + head * k_.nb[2] + ks * k_.nb[3],
                  v_.data + head * v_.nb[2] + vs * v_.nb[3],
                  k_.type, v_.type,
                  k_.nb[1], v_.nb[1],
                  static_cast<int>(k_.ne[0]), static_cast<int>(v_.ne[0]),
                  params_.scale, params_.soft_cap};
    return unit;
  }

 private:
  int64_t n_tiles() const { return (n_rows_ + rows_of_tile_ - 1) / rows_of_tile_; }

  AttentionRow row(int64_t token, int64_t head, int64_t stream) const {
    AttentionRow row{};
    const char* query = q_.data + token * q_.nb[1] + head * q_.nb[2] + stream * q_.nb[3];
    row.query = reinterpret_cast<const float*>(query);
    row.slope = slope_of(head, q_.ne[2], params_.max_bias);
    row.seen = &seen_.of(token, stream);
    row.mask = mask_.row(token, stream);
    if (sinks_) row.sink = reinterpret_cast<const float*>(sinks_->data) + head;
    row.output = reinterpret_cast<float*>(
        out_.data + ((stream * out_.ne[2] + token) * out_.ne[1] + head) * out_.nb[1]);
    return row;
  }

  const Tensor &out_, &q_, &k_, &v_;
  const Mask mask_;
  const Tensor* sinks_;
  const ggml::FlashAttention params_;
  const SeenByTokens& seen_;
  const int64_t group_, n_rows_;
  int64_t rows_of_tile_ = kRows;
};

size_t needed(const Attention& attention) {
  return static_cast<size_t>(attention.n_units() * attention.n_parts()) * attention.part_size();
}

bool fits(const Attention& attention) {
  return attention.n_parts() > 1 && attention.n_units() <= static_cast<int64_t>(Workspace::kMostUnits) &&
         needed(attention) <= Workspace::kMostFloats;
}

// Whether threads share the cells of units. With this many units each thread has several anyway, and
// reading queries once for all parts is cheaper.
bool shares_cells(const Attention& attention, int n_threads, const Workspace& workspace) {
  return n_threads > 1 && attention.n_units() < 4 * static_cast<int64_t>(n_threads) && fits(attention) &&
         needed(attention) <= workspace.sums.size();
}

// A unit. Without scratch memory its output is NaN, which ends the requests.
void run_unit(const Attention& attention, int64_t number, const SimdPath& simd, float* scratch) {
  const Attention::Unit unit = attention.unit(number);
  if (scratch) {
    simd.attend(unit.cells, unit.rows, unit.n_rows, scratch);
  } else {
    for (int i = 0; i < unit.n_rows; ++i) {
      std::fill_n(unit.rows[i].output, unit.cells.value_size, std::nanf(""));
    }
  }
}

// A part of a unit. Whoever computes the last one joins them. Without scratch memory the part is NaN.
void run_part(const Attention& attention, int64_t task, const SimdPath& simd, float* scratch,
              Workspace& workspace) {
  const int64_t n_parts = attention.n_parts(), number = task / n_parts, part = task % n_parts;
  const Attention::Unit unit = attention.unit(number);
  const size_t stride = unit.n_rows * simd.part_size(unit.cells.value_size);
  float* sums = workspace.sums.data() + static_cast<size_t>(number * n_parts) * attention.part_size();
  float* own = sums + static_cast<size_t>(part) * stride;
  if (scratch) {
    simd.attend_part(unit.cells, unit.rows, unit.n_rows, static_cast<int>(part), scratch, own);
  } else {
    std::fill_n(own, stride, std::nanf(""));
  }
  std::atomic<int32_t>& n_done = workspace.n_done[static_cast<size_t>(number)];
  if (n_done.fetch_add(1, std::memory_order_acq_rel) + 1 < n_parts) return;
  n_done.store(0, std::memory_order_relaxed);
  simd.join_parts(unit.cells, unit.rows, unit.n_rows, static_cast<int>(n_parts), sums);
}

// Keys or values whose numbers lie side by side.
bool can_read_cells(const Tensor& cells) {
  const bool is_known = (cells.type == ggml::kFloat32 && cells.nb[0] == 4) ||
                        (cells.type == ggml::kFloat16 && cells.nb[0] == 2) ||
                        (cells.type == ggml::kQ8_0 && cells.nb[0] == 34 && cells.ne[0] % 32 == 0);
  return is_known && cells.ne[1] <= std::numeric_limits<int32_t>::max();
}

// A mask that is known before the graph is computed, and the same for all heads.
bool can_read_mask(const Tensor& mask, const Tensor& q, const Tensor& k) {
  return mask.type == ggml::kFloat16 && mask.op == ggml::kNoOp && mask.data && mask.ne[0] == k.ne[1] &&
         mask.ne[1] >= q.ne[1] && mask.ne[2] == 1 && (mask.ne[3] == 1 || mask.ne[3] == q.ne[3]);
}

}  // namespace

bool tinker::can_compute_attention(const Tensor& node) {
  const Tensor &q = *node.src[0], &k = *ggml::before_cast(node.src[1]), &v = *ggml::before_cast(node.src[2]);
  const Tensor* mask = node.src[3];
  return q.type == ggml::kFloat32 && q.nb[0] == sizeof(float) && can_read_cells(k) && can_read_cells(v) &&
         k.ne[2] == v.ne[2] && q.ne[2] % k.ne[2] == 0 && (!mask || can_read_mask(*mask, q, k));
}

void tinker::leave_out_casts(Tensor& node) {
  for (Tensor** source : {&node.src[1], &node.src[2]}) {
    Tensor* before = ggml::before_cast(*source);
    if (before != *source) (*source)->op = ggml::kNoOp;  // its numbers are for this node alone
    *source = before;
  }
}

void* tinker::prepare_attention(const Tensor& node, GraphState& state) {
  try {
    GraphMask& mask = state.mask(Attention::mask_of(node), *ggml::before_cast(node.src[1]));
    const Attention attention(node, {}, mask.seen);
    if (fits(attention)) has_room(state.workspace.sums, needed(attention));  // without it, units stay whole
    return &mask;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

// Called in each of llama.cpp's threads. Bits do not depend on who computes which task.
void tinker::compute_attention(Tensor* node, int thread, int n_threads, void* user_data) {
  if (!user_data) {
    if (thread == 0) fill_with_nan(*node);
    return;
  }
  GraphMask& mask = *static_cast<GraphMask*>(user_data);
  mask.state.begin_computing();
  Attention attention(*node, TakenOver::of(*node).own<ggml::FlashAttention>(), mask.seen);
  attention.enlarge_tiles(n_threads);
  const SimdPath& simd = simd_path_in_use();
  static thread_local std::vector<float> scratch;
  const bool runs = has_room(scratch, simd.attention_scratch(static_cast<int>(node->src[1]->ne[0]),
                                                             static_cast<int>(node->src[2]->ne[0])));
  const bool shares = shares_cells(attention, n_threads, mask.state.workspace);
  const int64_t n_tasks = attention.n_units() * (shares ? attention.n_parts() : 1);
  // Attention over a large image takes long, so an abort ends it, too. Parts that are shared must all come.
  for (int32_t task; (task = take_task(*node)) < n_tasks && (shares || !mask.state.is_aborted());) {
    if (shares) {
      run_part(attention, task, simd, runs ? scratch.data() : nullptr, mask.state.workspace);
    } else {
      run_unit(attention, task, simd, runs ? scratch.data() : nullptr);
    }
  }
}
