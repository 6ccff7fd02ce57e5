#pragma once

#include "activation.hpp"
#include "graph_callback.hpp"

namespace tinker {

bool can_compute_activation(const ggml::Tensor& node);
void* prepare_activation(const ggml::Tensor& node, GraphState& state);
void compute_gelu_tanh(ggml::Tensor* node, int thread, int n_threads, void* state);
void compute_gelu_quick(ggml::Tensor* node, int thread, int n_threads, void* state);

// GELU, alone (GGML_OP_UNARY) and times a gate (GGML_OP_GLU). llama.cpp looks it up in a table of 16-bit
// floats.
constexpr GraphOperation graph_gelu_tanh{can_compute_activation, compute_gelu_tanh, prepare_activation};
constexpr GraphOperation graph_gelu_quick{can_compute_activation, compute_gelu_quick, prepare_activation};

}  // namespace tinker
