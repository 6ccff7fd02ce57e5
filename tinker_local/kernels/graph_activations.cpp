// A node of an activation in tasks for llama.cpp's threads: some numbers of a row.
#include "graph_activations.hpp"

#include <algorithm>
#include <utility>

#include "simd_path.hpp"

namespace {

using namespace tinker;
using ggml::Tensor;

constexpr int64_t kOfTask = 2048;  // numbers

bool is_halved(const Tensor& node) { return !node.src[1] && node.src[0]->ne[0] == 2 * node.ne[0]; }

// The numbers of a row and their gates, which are in two tensors or in the halves of one. There may be none.
struct Inputs {
  const float *x, *gates;

  Inputs(const Tensor& node, int64_t row) : x(ggml::row_of(*node.src[0], row)), gates(nullptr) {
    if (node.src[1]) gates = ggml::row_of(*node.src[1], row);
    if (!is_halved(node)) return;
    gates = x + node.ne[0];
    if (TakenOver::of(node).own<ggml::Activation>().is_swapped) std::swap(x, gates);
  }
};

void compute(Tensor& node, Gelu form, GraphState& state) {
  state.begin_computing();
  const int64_t size = node.ne[0], n_rows = ggml::n_rows_of(node);
  const int64_t n_of_row = (size + kOfTask - 1) / kOfTask;
  const SimdPath& simd = simd_path_in_use();
  for (int64_t task; (task = take_task(node)) < n_rows * n_of_row;) {
    const int64_t row = task / n_of_row, first = task % n_of_row * kOfTask;
    const Inputs inputs(node, row);
    simd.activate(inputs.x + first, inputs.gates ? inputs.gates + first : nullptr,
                  std::min(kOfTask, size - first), form, ggml::row_of(node, row) + first);
  }
}

bool are_rows(const Tensor& tensor, const Tensor& node, int64_t size) {
  return tensor.type == ggml::kFloat32 && tensor.nb[0] == sizeof(float) && tensor.ne[0] == size &&
         std::equal(tensor.ne + 1, tensor.ne + 4, node.ne + 1);
}

}  // namespace

bool tinker::can_compute_activation(const Tensor& node) {
  const int64_t size = node.ne[0];
  return are_rows(node, node, size) && are_rows(*node.src[0], node, is_halved(node) ? 2 * size : size) &&
         (!node.src[1] || are_rows(*node.src[1], node, size));
}

void* tinker::prepare_activation(const Tensor&, GraphState& state) { return &state; }

void tinker::compute_gelu_tanh(Tensor* node, int, int, void* state) {
  compute(*node, kGeluTanh, *static_cast<GraphState*>(state));
}

void tinker::compute_gelu_quick(Tensor* node, int, int, void* state) {
  compute(*node, kGeluQuick, *static_cast<GraphState*>(state));
}
