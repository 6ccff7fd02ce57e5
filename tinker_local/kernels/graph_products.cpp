// A node of a matrix product in tasks for llama.cpp's threads: some columns of one matrix for some rows.
#include "graph_products.hpp"

#include <algorithm>
#include <new>
#include <vector>

#include "simd_path.hpp"

namespace {

using namespace tinker;
using ggml::Tensor;

constexpr int64_t kLanes = 16;
constexpr int64_t kRowsOfTask = 128;  // where there would be too few tasks otherwise
constexpr int64_t kTasksOfThread = 4;

// The rows that one matrix multiplies.
struct Group {
  const char* weights;
  int64_t first, n;
};

// All of a node's rows, by group. Each thread lists them for itself: that is cheap, and experts are only known
// when the node is computed.
struct Rows {
  std::vector<ProductRow> rows;
  std::vector<Group> groups;
  std::vector<float> padded;  // inputs, with zeros up to whole lanes
  std::vector<float> panel;

  void clear() {
    rows.clear();
    groups.clear();
  }

  void add(const char* input, char* output) {
    rows.push_back({reinterpret_cast<const float*>(input), reinterpret_cast<float*>(output)});
  }

  void begin_group(const char* weights) { groups.push_back({weights, static_cast<int64_t>(rows.size()), 0}); }

  void end_group() {
    groups.back().n = static_cast<int64_t>(rows.size()) - groups.back().first;
    if (!groups.back().n) groups.pop_back();
  }

  // Copies of inputs that end within lanes.
  void pad(int64_t size) {
    if (size % kLanes == 0) return;
    const int64_t width = (size + kLanes - 1) / kLanes * kLanes;
    padded.assign(rows.size() * static_cast<size_t>(width), 0.0f);
    float* to = padded.data();
    for (ProductRow& row : rows) {
      std::copy_n(row.input, size, to);
      row.input = to;
      to += width;
    }
  }
};

// Matrices lie in the third and fourth dimension; each multiplies the same number of neighbouring ones of the
// activations.
void list_rows(const Tensor& node, Rows& list) {
  const Tensor &weights = *node.src[0], &inputs = *node.src[1];
  const int64_t n2 = inputs.ne[2] / weights.ne[2], n3 = inputs.ne[3] / weights.ne[3];
  for (int64_t w3 = 0; w3 < weights.ne[3]; ++w3) {
    for (int64_t w2 = 0; w2 < weights.ne[2]; ++w2) {
      list.begin_group(weights.data + w2 * weights.nb[2] + w3 * weights.nb[3]);
      for (int64_t i3 = w3 * n3; i3 < (w3 + 1) * n3; ++i3) {
        for (int64_t i2 = w2 * n2; i2 < (w2 + 1) * n2; ++i2) {
          for (int64_t i1 = 0; i1 < inputs.ne[1]; ++i1) {
            list.add(inputs.data + i1 * inputs.nb[1] + i2 * inputs.nb[2] + i3 * inputs.nb[3],
                     node.data + i1 * node.nb[1] + i2 * node.nb[2] + i3 * node.nb[3]);
          }
        }
      }
      list.end_group();
    }
  }
}

// Matrices are experts, and each token names the few that multiply it.
void list_rows_of_experts(const Tensor& node, Rows& list) {
  const Tensor &weights = *node.src[0], &inputs = *node.src[1], &ids = *node.src[2];
  for (int64_t expert = 0; expert < weights.ne[2]; ++expert) {
    list.begin_group(weights.data + expert * weights.nb[2]);
    for (int64_t token = 0; token < ids.ne[1]; ++token) {
      for (int64_t place = 0; place < ids.ne[0]; ++place) {
        const char* id = ids.data + place * ids.nb[0] + token * ids.nb[1];
        if (*reinterpret_cast<const int32_t*>(id) != expert) continue;
        list.add(inputs.data + place % inputs.ne[1] * inputs.nb[1] + token * inputs.nb[2],
                 node.data + place * node.nb[1] + token * node.nb[2]);
      }
    }
    list.end_group();
  }
}

using List = void (*)(const Tensor& node, Rows& list);

// False where there is no memory for it.
bool is_ready(const Tensor& node, List list, Rows& rows) {
  try {
    rows.clear();
    list(node, rows);
    rows.pad(node.src[0]->ne[0]);
    rows.panel.resize(kColumns * kSpan);
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

// How a node is cut into tasks. Bits do not depend on it.
struct Cut {
  int64_t columns, n_columns;  // of a task, and tasks side by side
  int64_t rows;

  Cut(int64_t size, const std::vector<Group>& groups, int n_threads) {
    const int64_t n_wanted = kTasksOfThread * n_threads, most = most_rows(groups);
    const int64_t panels = std::max<int64_t>(1, size / (n_wanted * kColumns));
    columns = most == 1 ? panels * kColumns : kColumns;
    n_columns = (size + columns - 1) / columns;
    const bool are_enough = n_columns * static_cast<int64_t>(groups.size()) >= n_wanted;
    rows = are_enough ? most : std::min(most, kRowsOfTask);
  }

  int64_t n_tasks(const Group& group) const { return n_columns * ((group.n + rows - 1) / rows); }

  static int64_t most_rows(const std::vector<Group>& groups) {
    int64_t most = 1;
    for (const Group& group : groups) most = std::max(most, group.n);
    return most;
  }
};

Weights weights_of(const Tensor& tensor, const Group& group) {
  const ggml::TypeTraits& type = ggml::type_traits(tensor.type);
  return {group.weights, tensor.nb[1], tensor.ne[0], tensor.type,
          static_cast<size_t>(kSpan / type.block_size) * type.block_bytes, type.to_float};
}

// Called in each of llama.cpp's threads. A thread without memory takes no tasks. The first one says so, since the
// others may have none either.
void compute(Tensor* node, List list, int thread, int n_threads) {
  static thread_local Rows rows;
  if (!is_ready(*node, list, rows)) {
    if (thread == 0) fill_with_nan(*node);
    return;
  }
  const int64_t size = node->ne[0];
  const Cut cut(size, rows.groups, n_threads);
  const SimdPath& simd = simd_path_in_use();
  int64_t begin = 0;  // number of the group's first task
  auto group = rows.groups.begin();
  for (int64_t task; group != rows.groups.end();) {
    task = take_task(*node);
    for (; group != rows.groups.end() && task >= begin + cut.n_tasks(*group); ++group) begin += cut.n_tasks(*group);
    if (group == rows.groups.end()) return;
    const int64_t column = (task - begin) % cut.n_columns * cut.columns;
    const int64_t row = (task - begin) / cut.n_columns * cut.rows;
    simd.multiply_rows(weights_of(*node->src[0], *group), column,
                       static_cast<int>(std::min(cut.columns, size - column)), rows.rows.data() + group->first + row,
                       static_cast<int>(std::min(cut.rows, group->n - row)), rows.panel.data());
  }
}

// Whether it is weights as a file has them: no result of another node, and not repacked by llama.cpp.
bool are_weights(const Tensor& tensor) {
  const ggml::TypeTraits& type = ggml::type_traits(tensor.type);
  return tensor.op == ggml::kNoOp && !tensor.extra && kSpan % type.block_size == 0 &&
         tensor.nb[0] == type.block_bytes && (tensor.type == ggml::kFloat32 || type.to_float);
}

bool are_numbers(const Tensor& tensor) { return tensor.type == ggml::kFloat32 && tensor.nb[0] == sizeof(float); }

}  // namespace

bool tinker::can_compute_product(const Tensor& node) {
  const Tensor &weights = *node.src[0], &inputs = *node.src[1];
  return are_weights(weights) && are_numbers(inputs) && are_numbers(node) &&
         inputs.ne[2] % weights.ne[2] == 0 && inputs.ne[3] % weights.ne[3] == 0;
}

bool tinker::can_compute_product_of_experts(const Tensor& node) {
  return are_weights(*node.src[0]) && are_numbers(*node.src[1]) && are_numbers(node);
}

// Unpacking weights for very few rows takes longer than llama.cpp's products with rounded activations.
void* tinker::prepare_product(const Tensor& node, GraphState& state) {
  constexpr int64_t few = 2;
  const bool is_packed = ggml::type_traits(node.src[0]->type).is_quantized;
  const bool has_few_rows = node.ne[1] * node.ne[2] * node.ne[3] <= few;
  const bool is_left = state.products == Products::none ||
                       (state.products == Products::most && is_packed && has_few_rows);
  return is_left ? nullptr : &state;
}

void tinker::compute_product(Tensor* node, int thread, int n_threads, void* state) {
  static_cast<GraphState*>(state)->begin_computing();
  compute(node, list_rows, thread, n_threads);
}

void tinker::compute_product_of_experts(Tensor* node, int thread, int n_threads, void* state) {
  static_cast<GraphState*>(state)->begin_computing();
  compute(node, list_rows_of_experts, thread, n_threads);
}
