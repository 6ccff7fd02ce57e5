// What is known here of ggml: its tensors in memory, and what operations keep in a node. None of it is
// promised to stay, so `known_ops` checks it on nodes that the installed ggml makes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace tinker::ggml {

constexpr int32_t kFloat32 = 0, kFloat16 = 1, kQ8_0 = 8, kInt32 = 26, kInt64 = 27;  // enum ggml_type
constexpr int32_t kNoOp = 0;                                                        // enum ggml_op, of leaves

// struct ggml_tensor. A node of a graph is a tensor with an operation and its sources.
struct Tensor {
  int32_t type;
  void* buffer;
  int64_t ne[4];          // elements in each dimension, the fastest first
  size_t nb[4];           // bytes from one element to the next in each dimension
  int32_t op;             // enum ggml_op
  int32_t op_params[16];  // what the operation wants to know, in its own format
  int32_t flags;
  Tensor* src[10];
  Tensor* view_src;
  size_t view_offs;
  char* data;
  char name[64];
  void* extra;  // not null where llama.cpp has repacked weights
};

// Rows of a tensor of float32, in order of their number.
inline int64_t n_rows_of(const Tensor& tensor) { return tensor.ne[1] * tensor.ne[2] * tensor.ne[3]; }

inline float* row_of(const Tensor& tensor, int64_t number) {
  const int64_t i1 = number % tensor.ne[1], i2 = number / tensor.ne[1] % tensor.ne[2];
  const int64_t i3 = number / tensor.ne[1] / tensor.ne[2];
  return reinterpret_cast<float*>(tensor.data + i1 * tensor.nb[1] + i2 * tensor.nb[2] + i3 * tensor.nb[3]);
}

// op_params of flash attention.
struct FlashAttention {
  float scale, max_bias, soft_cap;
  int32_t precision;
};

// op_params of an activation, with or without gates.
struct Activation {
  int32_t kind;        // enum ggml_unary_op or ggml_glu_op
  int32_t is_swapped;  // the gates are the first half of the numbers, not the second
};

// ggml_custom_op_t: computes the share of thread number `thread` of a node.
using Compute = void (*)(Tensor* node, int thread, int n_threads, void* user_data);

// op_params of a custom operation, one that calls a function of whoever made the node.
struct Custom {
  Compute compute;
  int32_t n_tasks;  // -1: one for each thread
  void* user_data;
};

// struct ggml_type_traits: a format of numbers, in blocks.
struct TypeTraits {
  const char* name;
  int64_t block_size;  // numbers of a block
  int64_t interleave;
  size_t block_bytes;
  bool is_quantized;
  void (*to_float)(const void* from, float* to, int64_t n);
};

// struct ggml_init_params.
struct InitParams {
  size_t size;
  void* memory;
  bool no_alloc;
};

struct Context;  // struct ggml_context, only pointed to

// Functions of the installed ggml. We do not link against it: llama/graph_callback.py finds them.
struct Functions {
  Context* (*init)(InitParams);
  void (*free)(Context*);
  Tensor* (*new_tensor_4d)(Context*, int type, int64_t, int64_t, int64_t, int64_t);
  Tensor* (*set_name)(Tensor*, const char*);
  Tensor* (*flash_attn_ext)(Context*, Tensor* query, Tensor* key, Tensor* value, Tensor* mask, float scale,
                            float max_bias, float soft_cap);
  Tensor* (*set_rows)(Context*, Tensor* to, Tensor* rows, Tensor* numbers);
  Tensor* (*cast)(Context*, Tensor*, int type);
  Tensor* (*mul_mat)(Context*, Tensor* weights, Tensor* inputs);
  Tensor* (*mul_mat_id)(Context*, Tensor* weights, Tensor* inputs, Tensor* ids);
  Tensor* (*gelu)(Context*, Tensor* inputs);
  Tensor* (*gelu_quick)(Context*, Tensor* inputs);
  Tensor* (*geglu)(Context*, Tensor* halves);
  Tensor* (*geglu_swapped)(Context*, Tensor* halves);
  Tensor* (*geglu_split)(Context*, Tensor* inputs, Tensor* gates);
  Tensor* (*geglu_quick_split)(Context*, Tensor* inputs, Tensor* gates);
  const TypeTraits* (*type_traits)(int type);
  Tensor* (*custom_4d)(Context*, int type, int64_t, int64_t, int64_t, int64_t, Tensor** sources,
                       int n_sources, Compute, int n_tasks, void* user_data);
};

// The installed ggml's numbers of operations (enum ggml_op) and of their kinds, which move from version to
// version.
struct Ops {
  int32_t flash_attn_ext = -1, set_rows = -1, mul_mat = -1, mul_mat_id = -1, custom = -1, cast = -1;
  int32_t unary = -1, gelu = -1, gelu_quick = -1;
  int32_t glu = -1, geglu = -1, geglu_quick = -1;
};

// Nothing where the installed ggml keeps anything elsewhere than the structures above say.
std::optional<Ops> known_ops(const Functions& ggml);

// The installed ggml's traits of a type, once `known_ops` has found the ops.
const TypeTraits& type_traits(int32_t type);

// What a node casts from float32 to float16, if it is kept: memory of a cache, say. A graph writes over what a
// node has computed. Of any other tensor, itself. Once `known_ops` has found the ops.
Tensor* before_cast(Tensor* tensor);

}  // namespace tinker::ggml
