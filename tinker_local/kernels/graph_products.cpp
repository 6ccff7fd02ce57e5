// A node of a matrix product in tasks for llama.cpp's threads: some columns of one matrix for some rows. Where a
// kernel wants activations in another form, the first tasks prepare them, if there are many, and the others wait.
#include "graph_products.hpp"

#include <algorithm>
#include <new>
#include <vector>

#include "cpu.hpp"
#include "product_forms.hpp"
#include "product_rows.hpp"
#include "simd_path.hpp"

namespace {

using namespace tinker;
using ggml::n_rows_of;
using ggml::row_of;
using ggml::Tensor;

constexpr int64_t kLanes = 16;
constexpr int64_t kRowsOfTask = 128;  // where there would be too few tasks otherwise
constexpr int64_t kTasksOfThread = 4;
constexpr int64_t kRowsOfGroups = 8, kRowsOfSuperBlocks = 16;  // of a matrix, from which tiles are faster: measured
constexpr int64_t kPreparedOfTask = 4096;  // activations, at least
constexpr int64_t kPreparedAlone = 2 * kPreparedOfTask;  // up to which each thread prepares them for itself

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
};

Weights weights_of(const Tensor& tensor, const Group& group) {
  const ggml::TypeTraits& type = ggml::type_traits(tensor.type);
  return {group.weights, tensor.nb[1], tensor.ne[0], tensor.type,
          static_cast<size_t>(kSpan / type.block_size) * type.block_bytes, type.to_float};
}

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
bool prepares_alone(const Tensor& node) {
  return Form::n_numbers(node) <= kPreparedAlone;
}

template <class Form>
void compute_prepared(Tensor& node, List list, typename Form::Kernel kernel, const ProductState& state, int n_threads) {
  static thread_local Work<typename Form::Row> work;
  static thread_local std::vector<char> own;
  const bool is_alone = prepares_alone<Form>(node);
  if (is_alone) own.resize(std::max(own.size(), Form::n_bytes(node)));
  work.list.clear();
  work.rows.clear();
  list(node, work.list);
  const Form form(node, is_alone ? own : state.graph.prepared, work);
  for (int64_t unit = 0; is_alone && unit < form.n_units; ++unit) form.prepare(unit);
  int64_t n_before = 0;
  const bool is_done = is_alone || state.is_prepared;
  const int64_t task = is_done ? take_task(node) : prepare_together(node, form, n_before);
  const Cut cut(node.ne[0], work.list.groups, form.columns, Form::kFew, n_threads);
  multiply(node, work, cut, n_before, task, kernel);
}

// Whether it is weights as a file has them: no result of another node, and not repacked by llama.cpp.
bool are_weights(const Tensor& tensor) {
  const ggml::TypeTraits& type = ggml::type_traits(tensor.type);
  return tensor.op == ggml::kNoOp && !tensor.extra && kSpan % type.block_size == 0 &&
         tensor.nb[0] == type.block_bytes && (tensor.type == ggml::kFloat32 || type.to_float);
}

// The kernel that `find` has for a type; null if there is none.
template <class Kernel>
Kernel found_by(Kernel (*find)(int32_t type), int32_t type) {
  return find ? find(type) : nullptr;
}

// The kernel for tiles, or null. Results of other nodes, such as those by which a model chooses keys, are not rounded.
Multiply<TiledRow> tiled_product(const Tensor& weights) {
  return are_weights(weights) ? found_by(simd_path_in_use().tiled_product, weights.type) : nullptr;
}

int64_t n_rows_of_matrix(const Tensor& node) { return n_rows_of(node) / (node.src[0]->ne[2] * node.src[0]->ne[3]); }

// Calls f with the kernel that wants activations in another form; returns false where there is none. Kernels of packed
// weights give the same bits with tiles and without.
template <class F>
bool with_kernel(const Tensor& node, F f) {
  const SimdPath& simd = simd_path_in_use();
  const int32_t type = node.src[0]->type;
  const auto call = [&](auto kernel) {
    if (kernel) f(kernel);
    return kernel != nullptr;
  };
  if (call(tiled_product(*node.src[0]))) return true;
  const int64_t n_rows = n_rows_of_matrix(node);
  if (n_rows >= kRowsOfGroups && call(found_by(simd.tiled_group_product, type))) return true;
  if (n_rows >= kRowsOfSuperBlocks && call(found_by(simd.tiled_super_block_product, type))) return true;
  return call(simd.group_product(type)) || call(simd.super_block_product(type));
}

// What such a product's kernel gets; null where there is no memory for the activations.
template <class Form>
ProductState* prepare(const Tensor& node, GraphState& state) {
  if (!has_room(state.prepared, Form::n_bytes(node))) return nullptr;
  if (prepares_alone<Form>(node)) return &state.to_prepare;
  const Tensor& weights = *node.src[0];
  return &state.prepares({node.src[1], node.src[2], weights.ne[2] * weights.ne[3], Form::kNumber});
}

// Called in each of llama.cpp's threads. A thread without memory takes no tasks. The first one says so, since the
// others may have none either.
void compute(Tensor* node, List list, int thread, int n_threads, void* user_data) {
  const ProductState& state = *static_cast<const ProductState*>(user_data);
  state.graph.begin_computing();
  try {
    const bool is_prepared = with_kernel(*node, [&](auto kernel) {
      compute_prepared<FormFor<decltype(kernel)>>(*node, list, kernel, state, n_threads);
    });
    if (!is_prepared) compute_plain(*node, list, n_threads);
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

// Null where a product is left to ggml.
void* tinker::prepare_product(const Tensor& node, GraphState& state) {
  if (!are_weights(*node.src[0])) return state.multiplies_results ? &state.to_prepare : nullptr;
  if (state.products == Products::none) return nullptr;
  ProductState* found = nullptr;
  const bool is_prepared = with_kernel(node, [&](auto kernel) {
    found = prepare<FormFor<decltype(kernel)>>(node, state);
  });
  if (is_prepared) return found;
  const bool is_slow = ggml::type_traits(node.src[0]->type).is_quantized;
  return state.products == Products::all || !is_slow ? &state.to_prepare : nullptr;
}

void tinker::compute_product(Tensor* node, int thread, int n_threads, void* state) {
  compute(node, list_rows, thread, n_threads, state);
}

void tinker::compute_product_of_experts(Tensor* node, int thread, int n_threads, void* state) {
  compute(node, list_rows_of_experts, thread, n_threads, state);
}
