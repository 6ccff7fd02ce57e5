#include "kv_caches.hpp"

#include <algorithm>
#include <numeric>

using namespace tinker;
using ggml::Tensor;

namespace {

// The tensor that has the memory of a view.
const Tensor* owner_of(const Tensor& tensor) { return tensor.view_src ? tensor.view_src : &tensor; }

}  // namespace

void KvCaches::note_write(const Tensor& node) {
  if (node.src[1]->type != ggml::kInt64) return;
  writes_.push_back({owner_of(node), node.src[1]});
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
