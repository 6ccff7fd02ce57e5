// llama.cpp asks a callback before it computes a node of its graph. Nodes of flash attention are made custom
// operations here, which call our kernel. What is known of ggml's structures is checked by
// llama/graph_attention.py against nodes that ggml itself made, before the callback is used.
#include "graph_attention.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>
#include <vector>

#include "blocks.hpp"

namespace {

using namespace tinker;

// struct ggml_tensor, of ggml.h.
struct Tensor {
  int32_t type;
  void* buffer;
  int64_t ne[4];
  size_t nb[4];
  int32_t op;
  int32_t op_params[16];
  int32_t flags;
  Tensor* src[10];
  Tensor* view_src;
  size_t view_offs;
  char* data;
};

constexpr int32_t kFloat32 = 0, kFloat16 = 1;  // enum ggml_type

// What flash attention keeps in op_params, and what a custom operation does.
struct Flash {
  float scale, max_bias, soft_cap;
  int32_t precision;
};
struct Custom {
  void (*operation)(Tensor*, int, int, void*);
  int32_t n_tasks;
  void* user_data;
};
struct Params {
  Custom custom;
  Flash flash;
  int32_t next_task;  // threads take tasks one by one
};
static_assert(sizeof(Params) <= sizeof(Tensor::op_params));

std::atomic<int32_t> flash_attention{-1}, custom{-1};

// max_bias > 0 is ALiBi: each head has a slope of its own (Press et al., 2022).
float slope_of(int64_t head, int64_t n_heads, float max_bias) {
  if (max_bias <= 0) return 1;
  const auto power = static_cast<float>(1 << static_cast<int>(std::log2(n_heads)));
  const float h = static_cast<float>(head);
  return h < power ? std::pow(2.0f, -max_bias / power * (h + 1))
                   : std::pow(2.0f, -max_bias / 2 / power * (2 * (h - power) + 1));
}

class Attention {
 public:
  Attention(Tensor* out, const Flash& flash)
      : out_(*out), q_(*out->src[0]), k_(*out->src[1]), v_(*out->src[2]), mask_(out->src[3]),
        sinks_(out->src[4]), flash_(flash), group_(q_.ne[2] / k_.ne[2]),
        n_rows_(q_.ne[1] * group_), n_tiles_((n_rows_ + kRows - 1) / kRows) {}

  int64_t n_tasks() const { return n_tiles_ * k_.ne[2] * q_.ne[3]; }

  // A tile of rows of one key head in one stream; the last tiles, which see the most cells, come first.
  // Without scratch memory the result is NaN.
  void run(int64_t task, const Blocks& simd, float* scratch) const {
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
                               flash_.scale, flash_.soft_cap};
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
    row.slope = slope_of(head, q_.ne[2], flash_.max_bias);
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
  const Flash flash_;
  const int64_t group_, n_rows_, n_tiles_;
};

bool can_compute(const Tensor& out) {
  const Tensor *q = out.src[0], *k = out.src[1], *v = out.src[2];
  return q->type == kFloat32 && k->type == kFloat16 && v->type == kFloat16 &&
         k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0 && q->nb[0] == sizeof(float) &&
         k->nb[0] == sizeof(uint16_t) && v->nb[0] == sizeof(uint16_t) &&
         (!out.src[3] || out.src[3]->type == kFloat16);
}

// False where there is no memory for it.
bool has_room(std::vector<float>& scratch, size_t n) {
  try {
    scratch.resize(std::max(n, scratch.size()));
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

// Called in each of llama.cpp's threads. Without memory the result is NaN, which ends the requests.
void operation(Tensor* out, int, int, void*) {
  Params params;
  std::memcpy(&params, out->op_params, sizeof params);
  const Attention attention(out, params.flash);
  const Blocks& simd = blocks_in_use();
  static thread_local std::vector<float> scratch;
  const bool runs = has_room(scratch, simd.attention_scratch(static_cast<int>(out->src[1]->ne[0]),
                                                             static_cast<int>(out->src[2]->ne[0])));
  auto* next = reinterpret_cast<std::atomic<int32_t>*>(reinterpret_cast<char*>(out->op_params) +
                                                       offsetof(Params, next_task));
  for (int32_t task; (task = next->fetch_add(1)) < attention.n_tasks();) {
    attention.run(task, simd, runs ? scratch.data() : nullptr);
  }
}

// Asked before a node is computed, in one thread; never wants to see what became of it.
bool callback(Tensor* node, bool ask, void*) {
  if (!ask) return true;
  Params params{};
  if (node->op == flash_attention && can_compute(*node)) {
    params.custom = {operation, -1, nullptr};  // as many tasks as threads
    std::memcpy(&params.flash, node->op_params, sizeof params.flash);
    std::memcpy(node->op_params, &params, sizeof params);
    node->op = custom;
  } else if (node->op == custom) {
    std::memcpy(&params, node->op_params, sizeof params);
    if (params.custom.operation != operation) return false;
    params.next_task = 0;
    std::memcpy(node->op_params, &params, sizeof params);
  }
  return false;
}

}  // namespace

tinker::GraphAttention tinker::graph_attention(int flash_attention_op, int custom_op) {
  flash_attention = flash_attention_op;
  custom = custom_op;
  return {reinterpret_cast<uintptr_t>(&callback), reinterpret_cast<uintptr_t>(&operation)};
}
