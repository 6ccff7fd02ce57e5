// A flag by which one thread ends what another computes or loads: llama.cpp asks between any two operations
// of a graph, and between any two tensors of a file. A function of Python in its place would wait for the GIL
// each time.
#pragma once

#include <atomic>

namespace tinker {

using AbortFlag = std::atomic<bool>;

// ggml_abort_callback.
inline bool is_set(void* flag) { return static_cast<AbortFlag*>(flag)->load(std::memory_order_relaxed); }

// llama_progress_callback: whether to load on.
inline bool goes_on(float, void* flag) { return !is_set(flag); }

}  // namespace tinker
