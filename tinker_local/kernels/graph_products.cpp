// A node of a matrix product in tasks for llama.cpp's threads: some columns of one matrix for some rows. Where a
// kernel wants activations in another form, the first tasks prepare them, if there are many, and the others wait.
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
constexpr int64_t kPreparedOfTask = 4096;  // activations, at least
constexpr int64_t kPreparedAlone = 2 * kPreparedOfTask;  // up to which each thread prepares them for itself

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

// How a node is cut into tasks. Bits do not depend on it. Up to n_few rows, a task takes several panels of columns.
struct Cut {
  int64_t columns, n_columns;  // of a task, and tasks side by side
  int64_t rows;

  Cut(int64_t size, const std::vector<Group>& groups, int64_t columns_of_panel, int64_t n_few, int n_threads) {
    const int64_t n_wanted = kTasksOfThread * n_threads, most = most_rows(groups);
    const int64_t panels = std::max<int64_t>(1, size / (n_wanted * columns_of_panel));
    columns = most <= n_few ? panels * columns_of_panel : columns_of_panel;
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
  std::vector<int64_t> blocks;  // the first row of each, where a kernel wants rows together
  std::vector<float> padded;  // inputs, with zeros up to whole lanes
  std::vector<float> panel;
};

// Takes tasks until there are none left, the first of which has the number `begin`.
template <class Row, class Multiply>
void multiply(Tensor& node, Work<Row>& work, const Cut& cut, int64_t begin, int64_t task, Multiply kernel) {
  const int64_t size = node.ne[0];
  const std::vector<Group>& groups = work.list.groups;
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
  const Cut cut(node.ne[0], work.list.groups, kColumns, 1, n_threads);
  multiply(node, work, cut, 0, take_task(node), simd_path_in_use().multiply_rows);
}

// --- activations in another form ---

void pack(const SimdPath& simd, const float* x, int64_t n, int16_t* numbers, Run* scales) {
  simd.pack_groups(x, n, numbers, scales);
}
void pack(const SimdPath& simd, const float* x, int64_t n, int8_t* numbers, SuperRun* scales) {
  simd.pack_super_blocks(x, n, numbers, scales);
}

// In integers, for packed weights: row by row, all numbers, then all scales.
template <class AnyRow>
struct Packed {
  using Row = AnyRow;
  using Kernel = Multiply<Row>;
  using Number = typename Row::Number;
  using Scale = typename Row::Scale;
  static constexpr int64_t columns = kPackedColumns, kFew = 1;

  const Tensor& inputs;
  int64_t n_units;  // rows
  Number* numbers;
  Scale* scales;

  static int64_t n_numbers(const Tensor& node) { return n_rows_of(*node.src[1]) * node.src[1]->ne[0]; }

  static size_t n_bytes(const Tensor& node) {
    const auto n = static_cast<size_t>(n_numbers(node));
    return n * sizeof(Number) + n / Row::kScaled * sizeof(Scale);
  }

  Packed(const Tensor& node, std::vector<char>& memory, Work<Row>& work)
      : inputs(*node.src[1]), n_units(n_rows_of(inputs)), numbers(reinterpret_cast<Number*>(memory.data())),
        scales(reinterpret_cast<Scale*>(numbers + n_numbers(node))) {
    for (const Rows::Row& row : work.list.rows) {
      work.rows.push_back({numbers_of(row.input), scales_of(row.input), row.output});
    }
    work.panel.resize(kPanelSize);
  }

  Number* numbers_of(int64_t row) const { return numbers + row * inputs.ne[0]; }
  Scale* scales_of(int64_t row) const { return scales + row * (inputs.ne[0] / Row::kScaled); }

  void prepare(int64_t row) const {
    pack(simd_path_in_use(), row_of(inputs, row), inputs.ne[0], numbers_of(row), scales_of(row));
  }
};

// In bfloat16, for tiles: block by block, of the rows of a group.
struct Tiled {
  using Row = TiledRow;
  using Kernel = Multiply<TiledRow>;
  static constexpr int64_t kFew = kTiledRows;

  const Tensor& inputs;
  const Work<Row>& work;
  int64_t n_units, columns;

  static int64_t width(const Tensor& node) { return (node.src[1]->ne[0] + kRun - 1) / kRun * kRun; }
  static int64_t n_numbers(const Tensor& node) { return n_rows_of(node) * width(node); }
  static size_t n_bytes(const Tensor& node) { return static_cast<size_t>(n_numbers(node)) * 4 + kLine; }

  Tiled(const Tensor& node, std::vector<char>& memory, Work<Row>& work) : inputs(*node.src[1]), work(work) {
    const int64_t most = Cut::most_rows(work.list.groups);
    auto* numbers = reinterpret_cast<uint16_t*>(on_line(memory.data()));
    work.blocks.clear();
    for (const Group& group : work.list.groups) {
      for (int64_t i = 0; i < group.n; i += kRowsOfTile) {
        const int64_t n = std::min<int64_t>(kRowsOfTile, group.n - i), first = group.first + i;
        work.blocks.push_back(first);
        for (int64_t r = 0; r < n; ++r) work.rows.push_back({numbers + 2 * r, n, output(first + r)});
        numbers += n * 2 * width(node);
      }
    }
    n_units = static_cast<int64_t>(work.blocks.size());
    columns = most > kFew ? kTiledColumns : kStripColumns;
    work.panel.resize(tiled_scratch(most));
  }

  void prepare(int64_t unit) const {
    const int64_t first = work.blocks[static_cast<size_t>(unit)];
    const TiledRow& row = work.rows[static_cast<size_t>(first)];
    const float* x[kRowsOfTile];
    for (int64_t r = 0; r < row.n_together; ++r) x[r] = row_of(inputs, listed(first + r).input);
    simd_path_in_use().split_block(x, inputs.ne[0], row);
  }

 private:
  const Rows::Row& listed(int64_t row) const { return work.list.rows[static_cast<size_t>(row)]; }
  float* output(int64_t row) const { return listed(row).output; }
};

// Takes the first tasks of a node, of which there are n_tasks, as long as there are any. Then waits until all
// activations are prepared. Returns the number of the thread's next task.
template <class Form>
int64_t prepare_together(Tensor& node, const Form& form, int64_t& n_tasks) {
  const int64_t of_task = std::max<int64_t>(1, kPreparedOfTask * form.n_units / Form::n_numbers(node));
  n_tasks = (form.n_units + of_task - 1) / of_task;
  int64_t task;
  while ((task = take_task(node)) < n_tasks) {
    const int64_t end = std::min(form.n_units, (task + 1) * of_task);
    for (int64_t unit = task * of_task; unit < end; ++unit) form.prepare(unit);
    n_ready(node).fetch_add(1, std::memory_order_release);
  }
  while (n_ready(node).load(std::memory_order_acquire) < n_tasks) pause();
  return task;
}

// A few activations are prepared by each thread for itself: that is faster than to wait for another.
template <class Form>
void compute_prepared(Tensor& node, List list, typename Form::Kernel kernel, std::vector<char>& shared, int n_threads) {
  static thread_local Work<typename Form::Row> work;
  static thread_local std::vector<char> own;
  const bool is_alone = Form::n_numbers(node) <= kPreparedAlone;
  if (is_alone) own.resize(std::max(own.size(), Form::n_bytes(node)));
  work.list.clear();
  work.rows.clear();
  list(node, work.list);
  const Form form(node, is_alone ? own : shared, work);
  int64_t n_before = 0, task;
  if (is_alone) {
    for (int64_t unit = 0; unit < form.n_units; ++unit) form.prepare(unit);
    task = take_task(node);
  } else {
    task = prepare_together(node, form, n_before);
  }
  const Cut cut(node.ne[0], work.list.groups, form.columns, Form::kFew, n_threads);
  multiply(node, work, cut, n_before, task, kernel);
}

// Whether it is weights as a file has them: no result of another node, and not repacked by llama.cpp.
bool are_weights(const Tensor& tensor) {
  const ggml::TypeTraits& type = ggml::type_traits(tensor.type);
  return tensor.op == ggml::kNoOp && !tensor.extra && kSpan % type.block_size == 0 &&
         tensor.nb[0] == type.block_bytes && (tensor.type == ggml::kFloat32 || type.to_float);
}

// The kernel for tiles, or null. Results of other nodes, such as those by which a model chooses keys, are not rounded.
Multiply<TiledRow> tiled_product(const Tensor& weights) {
  const auto find = simd_path_in_use().tiled_product;
  return find && are_weights(weights) ? find(weights.type) : nullptr;
}

// Bytes of a product's activations in another form; 0 where they are taken as they are.
size_t n_prepared_bytes(const Tensor& node) {
  const SimdPath& simd = simd_path_in_use();
  const int32_t type = node.src[0]->type;
  if (tiled_product(*node.src[0])) return Tiled::n_bytes(node);
  if (simd.group_product(type)) return Packed<PackedRow>::n_bytes(node);
  return simd.super_block_product(type) ? Packed<SuperRow>::n_bytes(node) : 0;
}

// Called in each of llama.cpp's threads. A thread without memory takes no tasks. The first one says so, since the
// others may have none either.
void compute(Tensor* node, List list, int thread, int n_threads, void* state) {
  GraphState& of_graph = *static_cast<GraphState*>(state);
  of_graph.begin_computing();
  try {
    const Tensor& weights = *node->src[0];
    const SimdPath& simd = simd_path_in_use();
    if (const auto tiled = tiled_product(weights)) {
      compute_prepared<Tiled>(*node, list, tiled, of_graph.prepared, n_threads);
    } else if (const auto groups = simd.group_product(weights.type)) {
      compute_prepared<Packed<PackedRow>>(*node, list, groups, of_graph.prepared, n_threads);
    } else if (const auto blocks = simd.super_block_product(weights.type)) {
      compute_prepared<Packed<SuperRow>>(*node, list, blocks, of_graph.prepared, n_threads);
    } else {
      compute_plain(*node, list, n_threads);
    }
  } catch (const std::bad_alloc&) {
    if (thread == 0) fill_with_nan(*node);
  }
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
  if (const size_t n_bytes = n_prepared_bytes(node)) return has_room(state.prepared, n_bytes) ? &state : nullptr;
  const bool is_slow = ggml::type_traits(type).is_quantized;
  return state.products == Products::all || !is_slow ? &state : nullptr;
}

void tinker::compute_product(Tensor* node, int thread, int n_threads, void* state) {
  compute(node, list_rows, thread, n_threads, state);
}

void tinker::compute_product_of_experts(Tensor* node, int thread, int n_threads, void* state) {
  compute(node, list_rows_of_experts, thread, n_threads, state);
}
