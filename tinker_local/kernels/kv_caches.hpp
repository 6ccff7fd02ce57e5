// Which position each cell of a context's KV caches holds. llama.cpp gives a token any free cell. Nodes that
// write keys (SET_ROWS) say which.
#pragma once

#include <deque>
#include <unordered_set>
#include <vector>

#include "ggml.hpp"
#include "seen_cells.hpp"

namespace tinker {

class KvCaches {
 public:
  // A node that writes rows of a tensor, asked for before it is computed. Before the first write to a cache, its memory
  // is given back to the system, which gives it again, page by page, as cells are used. Throws std::bad_alloc.
  void note_write(const ggml::Tensor& node);

  // Another graph begins, whose nodes write to other cells.
  void forget_writes() { writes_.clear(); }

  // Of the cache that holds these keys, for a micro-batch of so many tokens. Throws std::bad_alloc.
  CellPositions positions(const ggml::Tensor& keys, int64_t n_tokens);

 private:
  using Positions = std::vector<int32_t>;
  struct Write {
    const ggml::Tensor *tensor, *cells;
  };
  struct Layer {
    const ggml::Tensor* keys;
    Positions* positions;
  };

  const Write* write_to(const ggml::Tensor* tensor) const;
  Positions* positions_of(const ggml::Tensor* tensor) const;
  Positions& add_layer(const Write& write);

  std::unordered_set<const ggml::Tensor*> written_;
  std::vector<Write> writes_;        // of the graph at hand
  std::vector<Layer> layers_;        // that were seen so far
  std::deque<Positions> positions_;  // a cache each: layers may have several, with and without a window
};

}  // namespace tinker
