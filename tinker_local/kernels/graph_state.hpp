// What is kept for one context of llama.cpp's, from one of its graphs to the next.
//
// llama.cpp asks for all nodes of a graph before it computes the first. What asking finds out is used while
// the graph is computed, and forgotten when the next graph begins. A graph that can be aborted is computed in
// parts, each of which is asked for and forgotten as if it were a graph.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <new>
#include <vector>

#include "abort_flag.hpp"
#include "kv_caches.hpp"
#include "seen_cells.hpp"

namespace tinker {

class GraphState;

// What the tokens of a graph see, by one of its masks.
struct GraphMask {
  SeenByTokens seen;
  GraphState& state;

  GraphMask(const Mask& mask, CellPositions positions, GraphState& state)
      : seen(mask, positions), state(state) {}
};

// False where there is no memory for it.
template <class T>
bool has_room(std::vector<T>& memory, size_t n) {
  try {
    memory.resize(std::max(n, memory.size()));
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

// Where the threads of a node leave the parts of units: one node is computed at a time.
struct Workspace {
  static constexpr size_t kMostUnits = 1024;
  static constexpr size_t kMostFloats = 4 << 20;  // 16 MB: there are enough units where there is more

  std::vector<float> sums;                                // (units, parts, rows, part_size)
  std::array<std::atomic<int32_t>, kMostUnits> n_done{};  // parts of each unit; 0 between nodes
};

// Which products are computed here: none, all but those with packed weights that no kernel here reads, or all.
enum class Products { none, fast, all };

// Which activations were prepared last, and for what.
struct PreparedOf {
  const ggml::Tensor *inputs, *ids;
  int64_t n_matrices;
  int form;  // of the kernel, in any numbering

  bool operator==(const PreparedOf& other) const {
    return inputs == other.inputs && ids == other.ids && n_matrices == other.n_matrices && form == other.form;
  }
};

// What a product's kernel gets: whether an earlier product of the same inputs has prepared its activations.
struct ProductState {
  GraphState& graph;
  bool is_prepared;
};

class GraphState {
 public:
  GraphState(Products products, bool multiplies_results)
      : products(products), multiplies_results(multiplies_results) {}

  KvCaches caches;
  Workspace workspace;
  std::vector<char> prepared;  // activations of the product that is computed, where its kernel wants another form
  ProductState to_prepare{*this, false}, is_prepared{*this, true};
  const Products products;
  const bool multiplies_results;  // products without weights, such as those of attention in steps
  int64_t n_left = 0;  // nodes of our operations that were left to ggml, whose kernels there go by shape

  // Said before each decode. What an earlier one left is over, whether or not it was computed. `abort` ends
  // the decode where llama.cpp has no flag for that; null where it has.
  void begin_decode(const AbortFlag* abort) {
    is_over_ = true;
    abort_ = abort;
    work_ = 0;
  }

  // Said of each node that may take long, with its number of multiplications. Whether a part of a graph ends
  // with it: starting threads for a part costs some 50 us, or far more on a busy machine.
  bool ends_part(int64_t n_multiplications) {
    if (!abort_) return false;
    work_ += n_multiplications;
    if (work_ < kWorkOfPart) return false;
    work_ = 0;
    return true;
  }

  bool is_aborted() const { return abort_ && abort_->load(std::memory_order_relaxed); }

  // Said by every thread that computes a node.
  void begin_computing() {
    if (!is_over_.load(std::memory_order_relaxed)) is_over_.store(true, std::memory_order_relaxed);
  }

  // Said when a node is asked for. The first after nodes were computed begins another graph.
  void begin_asking() {
    if (!is_over_.exchange(false, std::memory_order_relaxed)) return;
    caches.forget_writes();
    masks_.clear();
    prepared_of_ = {};
  }

  // Said of each product whose activations many threads prepare, in the order in which they are computed.
  ProductState& prepares(const PreparedOf& of) {
    const bool was_prepared = prepared_of_ == of;
    prepared_of_ = of;
    return was_prepared ? is_prepared : to_prepare;
  }

  // Throws std::bad_alloc.
  GraphMask& mask(const Mask& mask, const ggml::Tensor& keys) {
    for (GraphMask& known : masks_) {
      if (known.seen.is_of(mask)) return known;
    }
    const CellPositions positions = caches.positions(keys, mask.n_tokens * mask.n_streams);
    masks_.emplace_back(mask, positions, *this);
    return masks_.back();
  }

 private:
  static constexpr int64_t kWorkOfPart = 1 << 28;  // some 10 ms

  std::deque<GraphMask> masks_;
  PreparedOf prepared_of_{};
  std::atomic<bool> is_over_{false};
  const AbortFlag* abort_ = nullptr;  // whoever decodes keeps it
  int64_t work_ = 0;                  // multiplications of the part so far
};

}  // namespace tinker
