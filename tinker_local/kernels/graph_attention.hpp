// ggml's flash attention, computed by our kernel: see attention.hpp for what that promises.
#pragma once

#include "graph_callback.hpp"

namespace tinker {

bool can_compute_attention(const ggml::Tensor& node);
void compute_attention(ggml::Tensor* node, int thread, int n_threads, void* mask);
void* prepare_attention(const ggml::Tensor& node, GraphState& state);

// Keys and values are read as they are in the cache, which llama.cpp casts to float16 first if they are float32.
void leave_out_casts(ggml::Tensor& node);

constexpr GraphOperation graph_attention{can_compute_attention, compute_attention, prepare_attention,
                                         leave_out_casts};

}  // namespace tinker
