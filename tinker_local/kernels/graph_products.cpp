// A node of a matrix product in tasks for llama.cpp's threads: some columns of one matrix for some rows. Where
// weights are packed, the first tasks turn activations to integers, if there are many, and the others wait for those.
#include "graph_products.hpp"

#include <algorithm>
#include <new>
#include <vector>

#include "cpu.hpp"
#include "simd_path.hpp"

namespace {

using namespace tinker;
using ggml::n_rows_of;
using ggml::row_of;
using ggml::Tensor;

constexpr int64_t kLanes = 16;
constexpr int64_t kRowsOfTask = 128;  // where there would be too few tasks otherwise
constexpr int64_t kTasksOfThread = 4;
constexpr int64_t kPackedOfTask = 4096;  // activations turned to integers, at least
constexpr int64_t kPackedAlone = 2 * kPackedOfTask;  // up to which each thread does it for itself

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
void list_rows(const Tensor& node, Rows& list) {
  const Tensor &weights = *node.src[0], &inputs = *node.src[1];
  const int64_t n2 = inputs.ne[2] / weights.ne[2], n3 = inputs.ne[3] / weights.ne[3];
  for (int64_t w3 = 0; w3 < weights.ne[3]; ++w3) {
    for (int64_t w2 = 0; w2 < weights.ne[2]; ++w2) {
      list.begin_group(weights.data + w2 * weights.nb[2] + w3 * weights.nb[3]);
      for (int64_t i3 = w3 * n3; i3 < (w3 + 1) * n3; ++i3) {
        for (int64_t i2 = w2 * n2; i2 < (w2 + 1) * n2; ++i2) {
          for (int64_t i1 = 0; i1 < inputs.ne[1]; ++i1) {
            const int64_t number = i1 + inputs.ne[1] * (i2 + inputs.ne[2] * i3);
            list.add(number, row_of(node, number));
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
        list.add(place % inputs.ne[1] + inputs.ne[1] * token, row_of(node, place + node.ne[1] * token));
      }
    }
    list.end_group();
  }
}

using List = void (*)(const Tensor& node, Rows& list);

// How a node is cut into tasks. Bits do not depend on it.
struct Cut {
  int64_t columns, n_columns;  // of a task, and tasks side by side
  int64_t rows;

  Cut(int64_t size, const std::vector<Group>& groups, int64_t columns_of_panel, int n_threads) {
    const int64_t n_wanted = kTasksOfThread * n_threads, most = most_rows(groups);
    const int64_t panels = std::max<int64_t>(1, size / (n_wanted * columns_of_panel));
    columns = most == 1 ? panels * columns_of_panel : columns_of_panel;
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

// A thread's own lists and memory, kept from node to node.
template <class Row>
struct Work {
  Rows list;
  std::vector<Row> rows;  // those of the list, as a kernel takes them
  std::vector<float> padded;  // inputs, with zeros up to whole lanes
  std::vector<float> panel;
};

// Takes tasks until there are none left, the first of which has the number `begin`.
template <class Row, class Multiply>
void multiply(Tensor& node, Work<Row>& work, int64_t columns_of_panel, int64_t begin, int64_t task, int n_threads,
              Multiply kernel) {
  const int64_t size = node.ne[0];
  const std::vector<Group>& groups = work.list.groups;
  const Cut cut(size, groups, columns_of_panel, n_threads);
  for (auto group = groups.begin();; task = take_task(node)) {
    for (; group != groups.end() && task >= begin + cut.n_tasks(*group); ++group) begin += cut.n_tasks(*group);
    if (group == groups.end()) return;
    const int64_t column = (task - begin) % cut.n_columns * cut.columns;
    const int64_t row = (task - begin) / cut.n_columns * cut.rows;
    kernel(weights_of(*node.src[0], *group), column, static_cast<int>(std::min(cut.columns, size - column)),
           work.rows.data() + group->first + row, static_cast<int>(std::min(cut.rows, group->n - row)),
           work.panel.data());
  }
}

// --- plain weights ---

void list_plain(const Tensor& node, List list, Work<ProductRow>& work) {
  const Tensor& inputs = *node.src[1];
  const int64_t size = inputs.ne[0], width = (size + kLanes - 1) / kLanes * kLanes;
  work.list.clear();
  work.rows.clear();
  list(node, work.list);
  const size_t n = work.list.rows.size();
  if (width != size) work.padded.assign(n * static_cast<size_t>(width), 0.0f);
  float* padded = work.padded.data();
  for (const Rows::Row& row : work.list.rows) {
    const float* input = row_of(inputs, row.input);
    if (width != size) {
      std::copy_n(input, size, padded);
      input = padded;
      padded += width;
    }
    work.rows.push_back({input, row.output});
  }
  work.panel.resize(kPanelSize);
}

void compute_plain(Tensor& node, List list, int n_threads) {
  static thread_local Work<ProductRow> work;
  list_plain(node, list, work);
  multiply(node, work, kColumns, 0, take_task(node), n_threads, simd_path_in_use().multiply_rows);
}

// --- packed weights ---

// Activations of a node in integers, row by row: all numbers, then all runs.
struct Packed {
  int16_t* numbers;
  Run* runs;
  int64_t size;

  Packed(const Tensor& inputs, std::vector<char>& memory) : size(inputs.ne[0]) {
    numbers = reinterpret_cast<int16_t*>(memory.data());
    runs = reinterpret_cast<Run*>(numbers + n_rows_of(inputs) * size);
  }

  static size_t n_bytes(const Tensor& inputs) {
    const auto n = static_cast<size_t>(n_rows_of(inputs) * inputs.ne[0]);
    return n * sizeof(int16_t) + n / kRun * sizeof(Run);
  }

  int16_t* numbers_of(int64_t row) const { return numbers + row * size; }
  Run* runs_of(int64_t row) const { return runs + row * (size / kRun); }
};

void pack_rows(const Tensor& inputs, int64_t first, int64_t end, const Packed& packed) {
  const SimdPath& simd = simd_path_in_use();
  for (int64_t row = first; row < end; ++row) {
    simd.pack_row(row_of(inputs, row), inputs.ne[0], packed.numbers_of(row), packed.runs_of(row));
  }
}

// Takes the first tasks of a node, of which there are n_tasks, as long as there are any. Then waits until all
// activations are integers. Returns the number of the thread's next task.
int64_t pack_together(Tensor& node, const Packed& packed, int64_t& n_tasks) {
  const Tensor& inputs = *node.src[1];
  const int64_t n = n_rows_of(inputs), of_task = std::max<int64_t>(1, kPackedOfTask / inputs.ne[0]);
  n_tasks = (n + of_task - 1) / of_task;
  int64_t task;
  while ((task = take_task(node)) < n_tasks) {
    pack_rows(inputs, task * of_task, std::min(n, (task + 1) * of_task), packed);
    n_ready(node).fetch_add(1, std::memory_order_release);
  }
  while (n_ready(node).load(std::memory_order_acquire) < n_tasks) pause();
  return task;
}

void list_packed(const Tensor& node, List list, const Packed& packed, Work<PackedRow>& work) {
  work.list.clear();
  work.rows.clear();
  list(node, work.list);
  for (const Rows::Row& row : work.list.rows) {
    work.rows.push_back({packed.numbers_of(row.input), packed.runs_of(row.input), row.output});
  }
  work.panel.resize(kPanelSize);
}

// A few activations are turned to integers by each thread for itself: that is faster than to wait for another.
void compute_packed(Tensor& node, List list, MultiplyPacked kernel, std::vector<char>& shared, int n_threads) {
  static thread_local Work<PackedRow> work;
  static thread_local std::vector<char> own;
  const Tensor& inputs = *node.src[1];
  const bool is_alone = n_rows_of(inputs) * inputs.ne[0] <= kPackedAlone;
  if (is_alone) own.resize(std::max(own.size(), Packed::n_bytes(inputs)));
  const Packed packed(inputs, is_alone ? own : shared);
  list_packed(node, list, packed, work);
  int64_t n_before = 0, task;
  if (is_alone) {
    pack_rows(inputs, 0, n_rows_of(inputs), packed);
    task = take_task(node);
  } else {
    task = pack_together(node, packed, n_before);
  }
  multiply(node, work, kPackedColumns, n_before, task, n_threads, kernel);
}

// Called in each of llama.cpp's threads. A thread without memory takes no tasks. The first one says so, since the
// others may have none either.
void compute(Tensor* node, List list, int thread, int n_threads, void* state) {
  GraphState& of_graph = *static_cast<GraphState*>(state);
  of_graph.begin_computing();
  try {
    if (const MultiplyPacked kernel = simd_path_in_use().packed_product(node->src[0]->type)) {
      compute_packed(*node, list, kernel, of_graph.packed, n_threads);
    } else {
      compute_plain(*node, list, n_threads);
    }
  } catch (const std::bad_alloc&) {
    if (thread == 0) fill_with_nan(*node);
  }
}

// Whether it is weights as a file has them: no result of another node, and not repacked by llama.cpp.
bool are_weights(const Tensor& tensor) {
  const ggml::TypeTraits& type = ggml::type_traits(tensor.type);
  return tensor.op == ggml::kNoOp && !tensor.extra && kSpan % type.block_size == 0 &&
         tensor.nb[0] == type.block_bytes && (tensor.type == ggml::kFloat32 || type.to_float);
}

// Whether it is float32 or float16 numbers side by side, as caches and results of other nodes are.
bool are_plain(const Tensor& tensor) {
  const size_t size = tensor.type == ggml::kFloat32 ? 4 : tensor.type == ggml::kFloat16 ? 2 : 0;
  return !tensor.extra && tensor.nb[0] == size;
}

bool is_product_of_weights(const Tensor& node) {
  return TakenOver::of(node).custom.compute == compute_product && are_weights(*node.src[0]);
}

// Whether a tensor's rows are a product of weights, or are computed from one number by number, as a LoRA is added.
bool are_rows_by_weights(const Tensor& tensor) {
  const Tensor* node = &tensor;
  while (!is_product_of_weights(*node)) {
    const Tensor* source = node->src[0];
    if (!source || node->view_src || !std::equal(node->ne, node->ne + 4, source->ne)) return false;
    node = source;
  }
  return true;
}

// Whether each matrix of a tensor is one row of a product of weights, and so is of one token.
bool has_matrix_of_each_token(const Tensor& tensor) {
  if (!tensor.view_src || tensor.view_offs) return false;
  const Tensor& rows = *tensor.view_src;
  return tensor.ne[2] == rows.ne[1] && tensor.nb[2] == rows.nb[1] && tensor.ne[3] * rows.ne[2] * rows.ne[3] == 1 &&
         are_rows_by_weights(rows);
}

bool is_in_a_cache(const Tensor& tensor) { return (tensor.view_src ? *tensor.view_src : tensor).op == ggml::kNoOp; }

bool are_numbers(const Tensor& tensor) { return tensor.type == ggml::kFloat32 && tensor.nb[0] == sizeof(float); }

}  // namespace

bool tinker::can_compute_product(const Tensor& node) {
  const Tensor &weights = *node.src[0], &inputs = *node.src[1];
  return (are_weights(weights) || are_plain(weights)) && are_numbers(inputs) && are_numbers(node) &&
         inputs.ne[2] % weights.ne[2] == 0 && inputs.ne[3] % weights.ne[3] == 0;
}

bool tinker::can_compute_product_of_experts(const Tensor& node) {
  return are_weights(*node.src[0]) && are_numbers(*node.src[1]) && are_numbers(node);
}

bool tinker::goes_by_token(const Tensor& node) {
  const Tensor &left = *node.src[0], &right = *node.src[1];
  return !is_in_a_cache(left) && left.ne[2] == right.ne[2] && left.ne[3] == 1 && has_matrix_of_each_token(right);
}

// Null where there is no memory for the activations.
void* tinker::prepare_product(const Tensor& node, GraphState& state) {
  const int32_t type = node.src[0]->type;
  if (!are_weights(*node.src[0])) return state.multiplies_results ? &state : nullptr;
  if (state.products == Products::none) return nullptr;
  if (!simd_path_in_use().packed_product(type)) {
    const bool is_slow = ggml::type_traits(type).is_quantized;
    return state.products == Products::all || !is_slow ? &state : nullptr;
  }
  return has_room(state.packed, Packed::n_bytes(*node.src[1])) ? &state : nullptr;
}

void tinker::compute_product(Tensor* node, int thread, int n_threads, void* state) {
  compute(node, list_rows, thread, n_threads, state);
}

void tinker::compute_product_of_experts(Tensor* node, int thread, int n_threads, void* state) {
  compute(node, list_rows_of_experts, thread, n_threads, state);
}
