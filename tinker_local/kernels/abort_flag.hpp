// A flag by which one thread ends what another computes: llama.cpp asks between any two operations of a
// graph. A function of Python in its place would wait for the GIL each time.
#pragma once

#include <atomic>

namespace tinker {

using AbortFlag = std::atomic<bool>;

// ggml_abort_callback.
inline bool is_set(void* flag) { return static_cast<AbortFlag*>(flag)->load(std::memory_order_relaxed); }

}  // namespace tinker
