// Puts our attention into llama.cpp's graphs; see llama/graph_attention.py.
#pragma once

#include <cstdint>

namespace tinker {

// The addresses of a ggml_backend_sched_eval_callback and of a ggml_custom_op_t.
struct GraphAttention {
  uintptr_t callback, operation;
};

GraphAttention graph_attention(int flash_attention_op, int custom_op);

}  // namespace tinker
