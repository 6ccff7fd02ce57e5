#include "graph_callback.hpp"

#include <algorithm>
#include <mutex>
#include <new>

#include "graph_activations.hpp"
#include "graph_attention.hpp"
#include "graph_products.hpp"

namespace {

using namespace tinker;

// ggml's number of an operation, and what computes it here. Another operation is another line. Some operations
// are of several kinds, whose number is the first of op_params.
struct Entry {
  int32_t ggml::Ops::* op;
  GraphOperation ours;
  int32_t ggml::Ops::* kind = nullptr;
};
constexpr Entry table[] = {
    {&ggml::Ops::flash_attn_ext, graph_attention},
    {&ggml::Ops::mul_mat, graph_product},
    {&ggml::Ops::mul_mat_id, graph_product_of_experts},
    {&ggml::Ops::unary, graph_gelu_tanh, &ggml::Ops::gelu},
    {&ggml::Ops::unary, graph_gelu_quick, &ggml::Ops::gelu_quick},
    {&ggml::Ops::glu, graph_gelu_tanh, &ggml::Ops::geglu},
    {&ggml::Ops::glu, graph_gelu_quick, &ggml::Ops::geglu_quick},
};

ggml::Ops ops;  // written once, before anybody has the callback

bool is_of(const ggml::Tensor& node, const Entry& entry) {
  return node.op == ops.*entry.op && (!entry.kind || node.op_params[0] == ops.*entry.kind);
}

// What a node was taken over by; null if it was not.
const GraphOperation* taken_over_by(const ggml::Tensor& node) {
  if (node.op != ops.custom) return nullptr;
  const ggml::Compute compute = TakenOver::of(node).custom.compute;
  const Entry* found = std::find_if(std::begin(table), std::end(table),
                                    [&](const Entry& entry) { return entry.ours.compute == compute; });
  return found == std::end(table) ? nullptr : &found->ours;
}

// False where the node is left to ggml: there is no memory for what the operation needs, say.
bool take_over(ggml::Tensor& node, const GraphOperation& ours, GraphState& state) {
  void* prepared = ours.prepare(node, state);
  if (!prepared) return false;
  TakenOver params{};
  params.custom = {ours.compute, -1, prepared};
  std::memcpy(params.params, node.op_params, sizeof params.params);
  params.write_to(node);
  node.op = ops.custom;
  if (ours.adopt) ours.adopt(node);
  return true;
}

// llama.cpp may compute a graph again: its nodes are custom operations then, with no tasks left.
void begin_again(ggml::Tensor& node, const GraphOperation& ours, GraphState& state) {
  TakenOver params = TakenOver::of(node);
  params.custom.user_data = ours.prepare(node, state);
  params.next_task = params.n_ready = 0;
  params.write_to(node);
}

void note_write(const ggml::Tensor& node, GraphState& state) {
  try {
    state.caches.note_write(node);
  } catch (const std::bad_alloc&) {
    // Positions of its cells are not known then. Attention is right in any order of them.
  }
}

// Gives a node to a kernel of ours, if one can compute it. Returns whether its operation is in the table.
bool offer(ggml::Tensor& node, GraphState& state) {
  if (const GraphOperation* ours = taken_over_by(node)) {
    begin_again(node, *ours, state);
    return true;
  }
  const Entry* entry = std::find_if(std::begin(table), std::end(table),
                                    [&](const Entry& each) { return is_of(node, each); });
  if (entry == std::end(table)) return false;
  if (entry->ours.can_compute(node) && take_over(node, entry->ours, state)) return true;
  if (!entry->ours.goes_by_token || !entry->ours.goes_by_token(node)) ++state.n_left;
  return true;
}

// Of a product, or of an attention, which has values; about.
int64_t n_multiplications(const ggml::Tensor& node) {
  const int64_t depth = node.src[2] ? node.src[1]->ne[1] : node.src[0]->ne[0];
  return node.ne[0] * ggml::n_rows_of(node) * depth;
}

// Asked before a node is computed, in one thread. The answer says whether to compute everything up to this
// node now, and then to ask with `ask` false whether to go on. So a graph that can be aborted is computed in
// parts.
bool callback(ggml::Tensor* node, bool ask, void* user_data) {
  if (!user_data) return !ask;
  GraphState& state = *static_cast<GraphState*>(user_data);
  if (!ask) return !state.is_aborted();
  state.begin_asking();
  if (node->op == ops.set_rows) note_write(*node, state);
  return offer(*node, state) && state.ends_part(n_multiplications(*node));
}

}  // namespace

tinker::GraphCallback tinker::graph_callback(const ggml::Functions& functions) {
  const std::optional<ggml::Ops> found = ggml::known_ops(functions);
  if (!found) return nullptr;
  static std::once_flag once;
  std::call_once(once, [&] { ops = *found; });
  return callback;
}
