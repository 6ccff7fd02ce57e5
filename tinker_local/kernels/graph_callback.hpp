// The door from llama.cpp's graphs to our kernels.
//
// llama.cpp asks a callback before it computes a node of its graph (llama_context_params.cb_eval). Where a
// kernel of ours computes the node's operation, the callback makes the node a custom operation that calls
// the kernel.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "ggml.hpp"
#include "graph_state.hpp"

namespace tinker {

// An operation of ggml's that a kernel of ours computes. graph_callback.cpp has the table of them.
struct GraphOperation {
  bool (*can_compute)(const ggml::Tensor& node);  // asked of a node as ggml made it
  ggml::Compute compute;                          // called on a node that was taken over
  // In one thread, before; returns what `compute` gets. Null where the node is better left to ggml.
  void* (*prepare)(const ggml::Tensor& node, GraphState& state);
  void (*adopt)(ggml::Tensor& node);  // once, when it is taken over; null if there is nothing to do
  // Whether bits of a node that is left to ggml depend on nothing but each token; null if they may.
  bool (*goes_by_token)(const ggml::Tensor& node) = nullptr;
};

// op_params of a node that was taken over.
struct TakenOver {
  ggml::Custom custom;  // what ggml reads
  int32_t next_task;    // threads take tasks one by one, since some take longer than others
  int32_t n_ready;      // tasks that are done, of those that others wait for
  int32_t params[8];    // the first of the operation's own op_params

  static TakenOver of(const ggml::Tensor& node) {
    TakenOver result;
    std::memcpy(&result, node.op_params, sizeof result);
    return result;
  }

  void write_to(ggml::Tensor& node) const { std::memcpy(node.op_params, this, sizeof *this); }

  template <class Params>
  Params own() const {
    static_assert(sizeof(Params) <= sizeof params);
    Params result;
    std::memcpy(&result, params, sizeof result);
    return result;
  }
};
static_assert(sizeof(TakenOver) <= sizeof(ggml::Tensor::op_params));

inline std::atomic<int32_t>& counter(ggml::Tensor& node, size_t offset) {
  return *reinterpret_cast<std::atomic<int32_t>*>(reinterpret_cast<char*>(node.op_params) + offset);
}

// The number of a task that no other thread of this node has; there are none left from some number on.
inline int32_t take_task(ggml::Tensor& node) { return counter(node, offsetof(TakenOver, next_task)).fetch_add(1); }

inline std::atomic<int32_t>& n_ready(ggml::Tensor& node) { return counter(node, offsetof(TakenOver, n_ready)); }

// What a node's numbers are where there is no memory to compute them: NaN, which ends the requests.
inline void fill_with_nan(ggml::Tensor& node) {
  std::fill_n(reinterpret_cast<float*>(node.data), node.ne[0] * ggml::n_rows_of(node),
              std::numeric_limits<float>::quiet_NaN());
}

// ggml_backend_sched_eval_callback. `user_data` is the GraphState of the context; without one, nodes are left
// alone.
using GraphCallback = bool (*)(ggml::Tensor* node, bool ask, void* user_data);

// The callback for llama_context_params.cb_eval; null where the installed ggml is not the one known here.
GraphCallback graph_callback(const ggml::Functions& functions);

}  // namespace tinker
