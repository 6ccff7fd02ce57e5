// The rows of a matrix product's node: which activations each weight matrix multiplies, and where the results go.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ggml.hpp"

namespace tinker {

// The rows that one matrix multiplies.
struct Group {
  const char* weights;
  int64_t first, n;
};

// All of a node's rows, by group. Each thread lists them for itself: that is cheap, and experts are only known
// when the node is computed.
struct Rows {
  struct Row {
    int64_t input;  // its number among all rows of activations
    float* output;
  };
  std::vector<Row> rows;
  std::vector<Group> groups;

  void clear() {
    rows.clear();
    groups.clear();
  }

  void add(int64_t input, float* output) { rows.push_back({input, output}); }

  void begin_group(const char* weights) { groups.push_back({weights, static_cast<int64_t>(rows.size()), 0}); }

  void end_group() {
    groups.back().n = static_cast<int64_t>(rows.size()) - groups.back().first;
    if (!groups.back().n) groups.pop_back();
  }
};

// Matrices lie in the third and fourth dimension; each multiplies the same number of neighbouring ones of the
// activations.
static inline void list_rows(const ggml::Tensor& node, Rows& list) {
  const ggml::Tensor &weights = *node.src[0], &inputs = *node.src[1];
  const int64_t n2 = inputs.ne[2] / weights.ne[2], n3 = inputs.ne[3] / weights.ne[3];
  for (int64_t w3 = 0; w3 < weights.ne[3]; ++w3) {
    for (int64_t w2 = 0; w2 < weights.ne[2]; ++w2) {
      list.begin_group(weights.data + w2 * weights.nb[2] + w3 * weights.nb[3]);
      for (int64_t i3 = w3 * n3; i3 < (w3 + 1) * n3; ++i3) {
        for (int64_t i2 = w2 * n2; i2 < (w2 + 1) * n2; ++i2) {
          for (int64_t i1 = 0; i1 < inputs.ne[1]; ++i1) {
            const int64_t number = i1 + inputs.ne[1] * (i2 + inputs.ne[2] * i3);
            list.add(number, ggml::row_of(node, number));
          }
        }
      }
      list.end_group();
    }
  }
}

// Matrices are experts, and each token names the few that multiply it.
static inline void list_rows_of_experts(const ggml::Tensor& node, Rows& list) {
  const ggml::Tensor &weights = *node.src[0], &inputs = *node.src[1], &ids = *node.src[2];
  for (int64_t expert = 0; expert < weights.ne[2]; ++expert) {
    list.begin_group(weights.data + expert * weights.nb[2]);
    for (int64_t token = 0; token < ids.ne[1]; ++token) {
      for (int64_t place = 0; place < ids.ne[0]; ++place) {
        const char* id = ids.data + place * ids.nb[0] + token * ids.nb[1];
        if (*reinterpret_cast<const int32_t*>(id) != expert) continue;
        list.add(place % inputs.ne[1] + inputs.ne[1] * token, ggml::row_of(node, place + node.ne[1] * token));
      }
    }
    list.end_group();
  }
}

using List = void (*)(const ggml::Tensor& node, Rows& list);

static inline int64_t most_rows(const std::vector<Group>& groups) {
  int64_t most = 1;
  for (const Group& group : groups) most = std::max(most, group.n);
  return most;
}

// Up to sixteen rows of a group, which are prepared together.
struct Block {
  int64_t first, n;  // of the listed rows
};

// A thread's own lists and memory, kept from node to node.
template <class Row>
struct Work {
  Rows list;
  std::vector<Row> rows;  // those of the list, as a kernel takes them
  std::vector<Block> blocks;  // where a kernel wants rows together
  std::vector<float> padded;  // inputs, with zeros up to whole lanes
  std::vector<float> panel;
};

}  // namespace tinker
