// A node of flash attention in parts for llama.cpp's threads: tiles of rows that look at the same cells.
#include "graph_attention.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "simd_path.hpp"

namespace {

using namespace tinker;
using ggml::Tensor;

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
  Attention(const Tensor& out, const ggml::FlashAttention& params)
      : out_(out), q_(*out.src[0]), k_(*out.src[1]), v_(*out.src[2]), mask_(out.src[3]),
        sinks_(out.src[4]), params_(params), group_(q_.ne[2] / k_.ne[2]),
        n_rows_(q_.ne[1] * group_), n_tiles_((n_rows_ + kRows - 1) / kRows) {}

  int64_t n_tasks() const { return n_tiles_ * k_.ne[2] * q_.ne[3]; }

  // A task is a tile: up to 64 rows of one key head in one stream. A row is a token and a head of its
  // group, the heads of a token side by side, for they look at the same cells. The last tiles, which see
  // the most cells, come first, so that no thread is left with a long one at the end. Without scratch
  // memory the result is NaN.
  void run(int64_t task, const SimdPath& simd, float* scratch) const {
    const int64_t tile = n_tiles_ - 1 - task / (k_.ne[2] * q_.ne[3]);
    const int64_t head = task % k_.ne[2], stream = task / k_.ne[2] % q_.ne[3];
    const int64_t first = tile * kRows, n = std::min<int64_t>(kRows, n_rows_ - first);
    AttentionRow rows[kRows];
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = first + i;
      rows[i] = this->row(row / group_, head * group_ + row % group_, stream);
    }
    const int64_t ks = stream / (q_.ne[3] / k_.ne[3]), vs = stream / (q_.ne[3] / v_.ne[3]);
    const AttentionCells cells{k_.data + head * k_.nb[2] + ks * k_.nb[3],
                               v_.data + head * v_.nb[2] + vs * v_.nb[3],
                               k_.nb[1], v_.nb[1], k_.ne[1],
                               static_cast<int>(k_.ne[0]), static_cast<int>(v_.ne[0]),
                               params_.scale, params_.soft_cap};
    if (scratch) {
      simd.attend(cells, rows, static_cast<int>(n), scratch);
    } else {
      for (int64_t i = 0; i < n; ++i) std::fill_n(rows[i].output, v_.ne[0], std::nanf(""));
    }
  }

 private:
  AttentionRow row(int64_t token, int64_t head, int64_t stream) const {
    AttentionRow row{};
    const char* query = q_.data + token * q_.nb[1] + head * q_.nb[2] + stream * q_.nb[3];
    row.query = reinterpret_cast<const float*>(query);
    row.slope = slope_of(head, q_.ne[2], params_.max_bias);
    if (mask_) {
      const char* mask = mask_->data + token * mask_->nb[1] + head % mask_->ne[2] * mask_->nb[2] +
                         stream % mask_->ne[3] * mask_->nb[3];
      row.mask = reinterpret_cast<const uint16_t*>(mask);
    }
    if (sinks_) row.sink = reinterpret_cast<const float*>(sinks_->data) + head;
    row.output = reinterpret_cast<float*>(
        out_.data + ((stream * out_.ne[2] + token) * out_.ne[1] + head) * out_.nb[1]);
    return row;
  }

  const Tensor &out_, &q_, &k_, &v_;
  const Tensor *mask_, *sinks_;
  const ggml::FlashAttention params_;
  const int64_t group_, n_rows_, n_tiles_;
};

// False where there is no memory for it.
bool has_room(std::vector<float>& scratch, size_t n) {
  try {
    scratch.resize(std::max(n, scratch.size()));
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

}  // namespace

bool tinker::can_compute_attention(const Tensor& node) {
  const Tensor *q = node.src[0], *k = node.src[1], *v = node.src[2];
  return q->type == ggml::kFloat32 && k->type == ggml::kFloat16 && v->type == ggml::kFloat16 &&
         k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0 && q->nb[0] == sizeof(float) &&
         k->nb[0] == sizeof(uint16_t) && v->nb[0] == sizeof(uint16_t) &&
         (!node.src[3] || node.src[3]->type == ggml::kFloat16);
}

// Called in each of llama.cpp's threads. Without memory the result is NaN, which ends the requests.
void tinker::compute_attention(Tensor* node, int, int, void*) {
  const Attention attention(*node, TakenOver::of(*node).own<ggml::FlashAttention>());
  const SimdPath& simd = simd_path_in_use();
  static thread_local std::vector<float> scratch;
  const bool runs = has_room(scratch, simd.attention_scratch(static_cast<int>(node->src[1]->ne[0]),
                                                             static_cast<int>(node->src[2]->ne[0])));
  for (int32_t task; (task = take_task(*node)) < attention.n_tasks();) {
    attention.run(task, simd, runs ? scratch.data() : nullptr);
  }
}
