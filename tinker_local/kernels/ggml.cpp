// Is the installed ggml the one whose structures ggml.hpp has? Nodes that it makes itself must hold every
// value where we would look for it. Values are all different, so that none is found in another's place.
#include "ggml.hpp"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <iterator>

namespace {

using namespace tinker::ggml;

constexpr int32_t kQ4_0 = 2;

const TypeTraits* (*traits)(int type) = nullptr;  // of the installed ggml ..
int32_t cast = -1;                               // .. and its number of that operation

void no_operation(Tensor*, int, int, void*) {}

template <class T>
bool are(const T* found, std::initializer_list<T> expected) {
  return std::equal(expected.begin(), expected.end(), found);
}

// The first sources are these, and there are no others.
bool sources_are(const Tensor& node, std::initializer_list<Tensor*> expected) {
  return std::equal(expected.begin(), expected.end(), node.src) &&
         std::all_of(node.src + expected.size(), std::end(node.src), [](Tensor* t) { return !t; });
}

template <class Params>
Params params_of(const Tensor& node) {
  static_assert(sizeof(Params) <= sizeof(Tensor::op_params));
  Params params;
  std::memcpy(&params, node.op_params, sizeof params);
  return params;
}

bool is_known_leaf(const Functions& ggml, Tensor* leaf) {
  constexpr const char* name = "tinker_local";
  ggml.set_name(leaf, name);  // behind the pointer to the data, the last that we use
  return leaf->type == kFloat16 && !leaf->data && !leaf->extra && std::memcmp(leaf->name, name, sizeof "tinker_local") == 0;
}

bool is_known_attention(const Tensor& node, std::initializer_list<Tensor*> sources) {
  const auto params = params_of<FlashAttention>(node);
  return node.type == kFloat32 && are<int64_t>(node.ne, {32, 4, 3, 1}) && sources_are(node, sources) &&
         params.scale == 0.5f && params.max_bias == 0.25f && params.soft_cap == 2.0f && !node.data &&
         !node.view_src;
}

// It writes rows of one tensor to another, and is a view of that.
bool is_known_write(const Tensor& node, Tensor* to, std::initializer_list<Tensor*> sources) {
  return are<int64_t>(node.ne, {16, 8, 2, 1}) && sources_are(node, sources) && node.view_src == to;
}

bool is_known_cast(const Functions& ggml, Context* memory, int32_t& op) {
  Tensor* number = ggml.new_tensor_4d(memory, kFloat32, 16, 8, 2, 1);
  const Tensor& node = *ggml.cast(memory, number, kFloat16);
  op = node.op;
  return node.type == kFloat16 && are<int64_t>(node.ne, {16, 8, 2, 1}) && node.src[0] == number && op != kNoOp;
}

// Shapes differ in every number, so that no source is taken for another.
bool is_known_product(const Functions& ggml, Context* memory, int32_t& op) {
  Tensor* weights = ggml.new_tensor_4d(memory, kFloat16, 16, 5, 1, 1);
  Tensor* inputs = ggml.new_tensor_4d(memory, kFloat32, 16, 3, 2, 1);
  const Tensor& node = *ggml.mul_mat(memory, weights, inputs);
  op = node.op;
  return node.type == kFloat32 && are<int64_t>(node.ne, {5, 3, 2, 1}) && sources_are(node, {weights, inputs});
}

bool is_known_product_of_experts(const Functions& ggml, Context* memory, int32_t& op) {
  Tensor* weights = ggml.new_tensor_4d(memory, kFloat16, 16, 5, 7, 1);
  Tensor* inputs = ggml.new_tensor_4d(memory, kFloat32, 16, 1, 3, 1);
  Tensor* ids = ggml.new_tensor_4d(memory, kInt32, 2, 3, 1, 1);
  const Tensor& node = *ggml.mul_mat_id(memory, weights, inputs, ids);
  op = node.op;
  return node.type == kFloat32 && are<int64_t>(node.ne, {5, 2, 3, 1}) && sources_are(node, {weights, inputs, ids});
}

bool is_known_activation(const Tensor& node, int64_t size, std::initializer_list<Tensor*> sources) {
  return node.type == kFloat32 && are<int64_t>(node.ne, {size, 3, 2, 1}) && sources_are(node, sources);
}

// One operation of two kinds.
bool are_known_kinds(const Tensor& one, const Tensor& other, int32_t& op, int32_t& kind, int32_t& other_kind) {
  op = one.op;
  kind = params_of<Activation>(one).kind, other_kind = params_of<Activation>(other).kind;
  return other.op == op && kind != other_kind;
}

// Two tensors, or the halves of one, of which either may be the gates.
bool are_known_activations(const Functions& ggml, Context* memory, Ops& ops) {
  Tensor* x = ggml.new_tensor_4d(memory, kFloat32, 16, 3, 2, 1);
  Tensor* gates = ggml.new_tensor_4d(memory, kFloat32, 16, 3, 2, 1);
  const Tensor &tanh = *ggml.gelu(memory, x), &quick = *ggml.gelu_quick(memory, x);
  const Tensor &split = *ggml.geglu_split(memory, x, gates);
  const Tensor &quick_split = *ggml.geglu_quick_split(memory, x, gates);
  const Tensor &halves = *ggml.geglu(memory, x), &swapped = *ggml.geglu_swapped(memory, x);
  const auto is = [](const Tensor& node, const Tensor& same, int32_t is_swapped) {
    const auto params = params_of<Activation>(node);
    return node.op == same.op && params.kind == params_of<Activation>(same).kind &&
           params.is_swapped == is_swapped;
  };
  return are_known_kinds(tanh, quick, ops.unary, ops.gelu, ops.gelu_quick) &&
         are_known_kinds(split, quick_split, ops.glu, ops.geglu, ops.geglu_quick) && ops.unary != ops.glu &&
         is_known_activation(tanh, 16, {x}) && is_known_activation(split, 16, {x, gates}) &&
         is_known_activation(halves, 8, {x}) && is_known_activation(swapped, 8, {x}) &&
         is(split, split, 0) && is(halves, split, 0) && is(swapped, split, 1);
}

// A type of blocks, and one without.
bool are_known_traits(const TypeTraits& half, const TypeTraits& q4_0) {
  return half.block_size == 1 && half.block_bytes == 2 && !half.is_quantized && half.to_float &&
         std::strcmp(q4_0.name, "q4_0") == 0 && q4_0.block_size == 32 && q4_0.block_bytes == 18 &&
         q4_0.is_quantized && q4_0.to_float;
}

bool is_known_custom(const Tensor& node, std::initializer_list<Tensor*> sources, void* user_data) {
  const auto params = params_of<Custom>(node);
  return are<int64_t>(node.ne, {5, 6, 7, 8}) && are<size_t>(node.nb, {4, 20, 120, 840}) &&
         sources_are(node, sources) && params.compute == no_operation && params.n_tasks == -1 &&
         params.user_data == user_data;
}

std::optional<Ops> ops_in(const Functions& ggml, Context* memory) {
  Tensor* query = ggml.new_tensor_4d(memory, kFloat32, 16, 3, 4, 1);
  Tensor* key = ggml.new_tensor_4d(memory, kFloat16, 16, 8, 2, 1);
  Tensor* value = ggml.new_tensor_4d(memory, kFloat16, 32, 8, 2, 1);
  Tensor* mask = ggml.new_tensor_4d(memory, kFloat16, 8, 64, 1, 1);
  Tensor* attention = ggml.flash_attn_ext(memory, query, key, value, mask, 0.5f, 0.25f, 2.0f);
  Tensor* rows = ggml.new_tensor_4d(memory, kFloat32, 16, 3, 2, 1);
  Tensor* numbers = ggml.new_tensor_4d(memory, kInt64, 3, 1, 1, 1);
  Tensor* write = ggml.set_rows(memory, key, rows, numbers);
  Tensor* sources[] = {query, key};
  Tensor* custom =
      ggml.custom_4d(memory, kFloat32, 5, 6, 7, 8, sources, 2, no_operation, -1, query);
  Ops ops;
  ops.flash_attn_ext = attention->op, ops.set_rows = write->op, ops.custom = custom->op;
  const bool is_known = is_known_leaf(ggml, key) &&
                        are_known_traits(*ggml.type_traits(kFloat16), *ggml.type_traits(kQ4_0)) &&
                        is_known_product(ggml, memory, ops.mul_mat) &&
                        is_known_product_of_experts(ggml, memory, ops.mul_mat_id) &&
                        is_known_cast(ggml, memory, ops.cast) &&
                        are_known_activations(ggml, memory, ops) &&
                        is_known_attention(*attention, {query, key, value, mask}) &&
                        is_known_write(*write, key, {rows, numbers, key}) &&
                        is_known_custom(*custom, {query, key}, query) && key->op == kNoOp &&
                        attention->op != custom->op && attention->op != write->op &&
                        write->op != custom->op;
  if (!is_known) return std::nullopt;
  return ops;
}

}  // namespace

std::optional<tinker::ggml::Ops> tinker::ggml::known_ops(const Functions& ggml) {
  constexpr size_t room = 1 << 16;  // for a few tensors without data
  Context* memory = ggml.init({room, nullptr, true});
  if (!memory) return std::nullopt;
  const std::optional<Ops> ops = ops_in(ggml, memory);
  ggml.free(memory);
  if (ops) {
    traits = ggml.type_traits;
    cast = ops->cast;
  }
  return ops;
}

const TypeTraits& tinker::ggml::type_traits(int32_t type) { return *traits(type); }

Tensor* tinker::ggml::before_cast(Tensor* tensor) {
  const Tensor* source = tensor->src[0];
  const bool is_cast = tensor->op == cast && tensor->type == kFloat16 && source->type == kFloat32 &&
                       std::equal(source->ne, std::end(source->ne), tensor->ne) &&
                       (source->view_src ? source->view_src : source)->op == kNoOp;
  return is_cast ? tensor->src[0] : tensor;
}
