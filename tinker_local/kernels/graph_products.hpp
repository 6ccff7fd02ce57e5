#pragma once

#include "graph_callback.hpp"

namespace tinker {

// Weights as a file has them times activations, if GraphState::products says so.
bool can_compute_product(const ggml::Tensor& node);
bool can_compute_product_of_experts(const ggml::Tensor& node);

// Results times results, a matrix of each for each token, as Gemma 3n's AltUp has them. ggml chooses the kernel by
// the shape of such a matrix, however many there are.
bool goes_by_token(const ggml::Tensor& node);
void* prepare_product(const ggml::Tensor& node, GraphState& state);
void compute_product(ggml::Tensor* node, int thread, int n_threads, void* user_data);
void compute_product_of_experts(ggml::Tensor* node, int thread, int n_threads, void* user_data);

// Weights times activations: GGML_OP_MUL_MAT and GGML_OP_MUL_MAT_ID.
constexpr GraphOperation graph_product{can_compute_product, compute_product, prepare_product, nullptr,
                                       goes_by_token};
constexpr GraphOperation graph_product_of_experts{can_compute_product_of_experts, compute_product_of_experts,
                                                  prepare_product, nullptr};

}  // namespace tinker
