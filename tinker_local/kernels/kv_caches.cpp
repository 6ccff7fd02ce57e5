#include "kv_caches.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

using namespace tinker;
using ggml::Tensor;

namespace {

// The tensor that has the memory of a view.
const Tensor* owner_of(const Tensor& tensor) { return tensor.view_src ? tensor.view_src : &tensor; }

// Keys or values of a layer, as llama.cpp names them: memory that lasts from graph to graph.
bool is_cache(const Tensor& tensor) {
  return tensor.op == ggml::kNoOp &&
         (!std::strncmp(tensor.name, "cache_k", 7) || !std::strncmp(tensor.name, "cache_v", 7));
}

// llama.cpp writes zeros to a whole new cache, so that all of it is in memory before a cell is used. On Linux, pages
// that are given back are zero when they are touched again: madvise(2), MADV_DONTNEED. A cache of another kind of
// memory stays as it is.
void give_back(const Tensor& cache) {
#if defined(__linux__)
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<uintptr_t>(cache.data);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t end = (begin + cache.nb[3] * static_cast<size_t>(cache.ne[3])) / page * page;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
#else
  (void)cache;
#endif
}

}  // namespace

void KvCaches::note_write(const Tensor& node) {
  if (node.src[1]->type != ggml::kInt64) return;
  const Tensor* owner = owner_of(node);
  if (is_cache(*owner) && written_.insert(owner).second) give_back(*owner);
  writes_.push_back({owner, node.src[1]});
}

CellPositions KvCaches::positions(const Tensor& keys, int64_t n_tokens) {
  const Tensor* owner = owner_of(keys);
  const Write* write = write_to(owner);
  Positions* found = positions_of(owner);
  if (!found && write) found = &add_layer(*write);
  if (!found || keys.view_offs || keys.ne[1] > static_cast<int64_t>(found->size())) return {};
  const bool is_known = write && write->cells->ne[0] == n_tokens;
  return {found->data(), is_known ? reinterpret_cast<const int64_t*>(write->cells->data) : nullptr};
}

// Layers of one cache are written to the same cells, by the same tensor of their numbers.
KvCaches::Positions& KvCaches::add_layer(const Write& write) {
  for (const Write& other : writes_) {
    if (other.cells != write.cells) continue;
    if (Positions* positions = positions_of(other.tensor)) {
      layers_.push_back({write.tensor, positions});
      return *positions;
    }
  }
  positions_.emplace_back(static_cast<size_t>(write.tensor->ne[1] * write.tensor->ne[2]));
  std::iota(positions_.back().begin(), positions_.back().end(), 0);
  layers_.push_back({write.tensor, &positions_.back()});
  return positions_.back();
}

const KvCaches::Write* KvCaches::write_to(const Tensor* tensor) const {
  const auto is_to = [&](const Write& write) { return write.tensor == tensor; };
  const auto found = std::find_if(writes_.begin(), writes_.end(), is_to);
  return found == writes_.end() ? nullptr : &*found;
}

KvCaches::Positions* KvCaches::positions_of(const Tensor* tensor) const {
  const auto is_of = [&](const Layer& layer) { return layer.keys == tensor; };
  const auto found = std::find_if(layers_.begin(), layers_.end(), is_of);
  return found == layers_.end() ? nullptr : found->positions;
}
