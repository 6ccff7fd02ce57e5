// ggml's flash attention, computed by our kernel: see attention.hpp for what that promises.
#pragma once

#include "graph_callback.hpp"

namespace tinker {

bool can_compute_attention(const ggml::Tensor& node);
void compute_attention(ggml::Tensor* node, int thread, int n_threads, void* mask);
void* prepare_attention(const ggml::Tensor& node, GraphState& state);

constexpr GraphOperation graph_attention{can_compute_attention, compute_attention, prepare_attention};

}  // namespace tinker
