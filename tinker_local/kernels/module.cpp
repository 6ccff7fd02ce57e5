// The door from Python: checks arguments, releases the GIL, and calls the kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "abort_flag.hpp"
#include "graph_callback.hpp"
#include "mapped_ranges.hpp"
#include "sample_rows.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace tinker;

// --- which instruction set ---------------------------------------------------------------------

std::vector<const SimdPath*> available() {
  std::vector<const SimdPath*> result;
  for (const SimdPath* path :
       {amx_path(), avx512_path(), avx_vnni_path(), avx2_path(), neon_path(), portable_path()}) {
    if (path) result.push_back(path);
  }
  return result;
}

std::atomic<const SimdPath*> chosen{available().front()};

std::vector<std::string> simd_paths() {
  std::vector<std::string> names;
  for (const SimdPath* path : available()) names.push_back(path->name);
  return names;
}

std::string simd_path() { return chosen.load()->name; }

void use_simd_path(const std::string& name) {
  for (const SimdPath* path : available()) {
    if (path->name == name) {
      chosen = path;
      return;
    }
  }
  throw nb::value_error(("this machine has no SIMD path named " + name).c_str());
}

// The best path stays in use if it was: AMX then, where it is granted.
bool request_amx() {
  const SimdPath* best = available().front();
  const bool is_granted = tinker::request_amx();
  chosen.compare_exchange_strong(best, available().front());
  return is_granted;
}

// --- arrays in and out -------------------------------------------------------------------------

using Array = nb::ndarray<nb::ro, nb::device::cpu>;

[[noreturn]] void wrong(const std::string& message) { throw nb::value_error(message.c_str()); }

template <class T>
const char* dtype_name();
template <>
const char* dtype_name<float>() { return "float32"; }
template <>
const char* dtype_name<int32_t>() { return "int32"; }
template <>
const char* dtype_name<int64_t>() { return "int64"; }
template <>
const char* dtype_name<uint64_t>() { return "uint64"; }

std::string shape_of(const Array& array) {
  std::string text = "(";
  for (size_t i = 0; i < array.ndim(); ++i) {
    text += (i ? ", " : "") + std::to_string(array.shape(i));
  }
  return text + (array.ndim() == 1 ? ",)" : ")");
}

bool is_contiguous(const Array& array) {
  int64_t stride = 1;
  for (size_t i = array.ndim(); i-- > 0;) {
    if (array.size() && array.shape(i) != 1 && array.stride(i) != stride) return false;
    stride *= static_cast<int64_t>(array.shape(i));
  }
  return true;
}

template <class T>
std::string wanted(const char* name) {
  return std::string(name) + " must be a C-contiguous numpy array of " + dtype_name<T>();
}

template <class T>
Array checked(const char* name, nb::handle object) {
  Array array;
  if (!nb::try_cast(object, array)) {
    const std::string given = nb::type_name(object.type()).c_str();
    throw nb::type_error((wanted<T>(name) + ", not " + given).c_str());
  }
  if (array.dtype() != nb::dtype<T>()) {
    const nb::str dtype(nb::getattr(object, "dtype", nb::str("another type")));
    throw nb::type_error((wanted<T>(name) + ", not of " + dtype.c_str()).c_str());
  }
  if (!is_contiguous(array)) wrong(wanted<T>(name) + ": this one has gaps or another order");
  return array;
}

// Null for None; else n values in one dimension.
template <class T>
const T* vector_of(const char* name, nb::handle object, size_t n) {
  if (object.is_none()) return nullptr;
  const Array array = checked<T>(name, object);
  if (array.ndim() != 1 || array.shape(0) != n) {
    wrong(std::string(name) + " must have shape (" + std::to_string(n) + ",), not " +
          shape_of(array));
  }
  return static_cast<const T*>(array.data());
}

// `range` says, and `allowed` decides, what a value may be.
template <class T, class Allowed>
void each_in(const char* name, const T* values, size_t n, const char* range, Allowed&& allowed) {
  for (size_t i = 0; values && i < n; ++i) {
    if (!allowed(values[i])) {
      wrong(std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(values[i]) +
            ", not " + range);
    }
  }
}

void ids_in(const char* name, const int32_t* ids, size_t n, int size) {
  each_in(name, ids, n, ("-1 or an id below " + std::to_string(size)).c_str(),
          [=](int32_t id) { return id >= -1 && id < size; });
}

Matrix matrix(nb::handle logits) {
  const Array array = checked<float>("logits", logits);
  constexpr size_t most = 1 << 30;
  if (array.ndim() != 2 || array.shape(1) == 0 || array.shape(0) > most || array.shape(1) > most) {
    wrong("logits must have shape (rows, vocabulary), not " + shape_of(array));
  }
  return {static_cast<const float*>(array.data()), static_cast<int>(array.shape(0)),
          static_cast<int>(array.shape(1))};
}

// Null for None: all rows in order. Sets how many there are.
const int32_t* checked_rows(nb::handle rows, const Matrix& logits, int& n) {
  n = logits.n_rows;
  if (rows.is_none()) return nullptr;
  const Array array = checked<int32_t>("rows", rows);
  if (array.ndim() != 1 || array.shape(0) > std::numeric_limits<int32_t>::max()) {
    wrong("rows must have one dimension, not shape " + shape_of(array));
  }
  n = static_cast<int>(array.shape(0));
  const auto* values = static_cast<const int32_t*>(array.data());
  const std::string range = "one of the " + std::to_string(logits.n_rows) + " rows of logits";
  each_in("rows", values, n, range.c_str(),
          [&](int32_t row) { return row >= 0 && row < logits.n_rows; });
  return values;
}

void check_topk(int topk, int size) {
  const int most = std::min(1024, size);
  if (topk < 0 || topk > most) {
    wrong("topk is " + std::to_string(topk) + ", not between 0 and " + std::to_string(most) +
          " (the smaller of 1024 and the vocabulary of " + std::to_string(size) + ")");
  }
}

// n + 1 places in an array of ids.
const int64_t* checked_indptr(const char* name, nb::handle object, size_t n, size_t n_ids) {
  const auto* indptr = vector_of<int64_t>(name, object, n + 1);
  const auto length = static_cast<int64_t>(n_ids);
  if (!indptr || indptr[0] != 0 || indptr[n] != length || !std::is_sorted(indptr, indptr + n + 1)) {
    wrong(std::string(name) + " must rise from 0 to the length of ids, " + std::to_string(length));
  }
  return indptr;
}

void check_threads(int n_threads) {
  if (n_threads < 1) wrong("n_threads is " + std::to_string(n_threads) + ", not at least 1");
}

bool is_temperature(float t) { return t >= 0 && t < kInfinity; }

// `edits` is a tuple of arrays: indptr, ids, bias, repetition, penalty.
LogitEdits checked_edits(nb::handle edits, size_t n, int size) {
  const size_t m = checked<int32_t>("edits.ids", edits[1]).size();
  LogitEdits e{};
  e.ids = vector_of<int32_t>("edits.ids", edits[1], m);
  each_in("edits.ids", e.ids, m, ("an id below " + std::to_string(size)).c_str(),
          [=](int32_t id) { return id >= 0 && id < size; });
  e.indptr = checked_indptr("edits.indptr", edits[0], n, m);
  const auto floats = [&](const char* name, int place) {
    checked<float>(name, edits[place]);  // None is refused
    return vector_of<float>(name, edits[place], m);
  };
  const auto is_finite = [](float x) { return std::isfinite(x); };
  e.bias = floats("edits.bias", 2);
  each_in("edits.bias", e.bias, m, "finite", is_finite);
  e.repetition = floats("edits.repetition", 3);
  each_in("edits.repetition", e.repetition, m, "finite and above 0",
          [](float x) { return x > 0 && x < kInfinity; });
  e.penalty = floats("edits.penalty", 4);
  each_in("edits.penalty", e.penalty, m, "finite", is_finite);
  return e;
}

// A new numpy array; `data` is set to its values. None, and null, where it is not wanted.
template <class T>
nb::object result(bool wanted, std::vector<size_t> shape, T*& data) {
  data = nullptr;
  if (!wanted) return nb::none();
  size_t n = 1;
  for (size_t side : shape) n *= side;
  data = new T[n]();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, T>(data, shape.size(), shape.data(), owner));
}

// None, or (row of logits, what is wrong with it) for the request that failed.
nb::object fault(const Matrix& logits, const int32_t* rows, int request) {
  if (request < 0) return nb::none();
  const int r = rows ? rows[request] : request;
  const float* begin = logits.row(r);
  const float* end = begin + logits.size;
  const bool nan = std::any_of(begin, end, [](float x) { return std::isnan(x); });
  const bool infinite = std::any_of(begin, end, [](float x) { return x == kInfinity; });
  return nb::make_tuple(r, nan ? "holds NaN" : infinite ? "holds +inf"
                                                        : "is all -inf");
}

// --- functions -----------------------------------------------------------------------------------

nb::tuple score_rows(nb::handle logits, nb::handle rows, nb::handle targets, int topk,
                     nb::handle ids, nb::handle ids_indptr, int alt_k, float alt_temperature,
                     uint64_t seed, nb::handle positions, int n_threads) {
  ScoreRows s{};
  s.logits = matrix(logits);
  s.rows = checked_rows(rows, s.logits, s.n);
  const size_t n = s.n;
  check_threads(n_threads);
  check_topk(topk, s.logits.size);
  s.topk = topk;
  s.targets = vector_of<int32_t>("targets", targets, n);
  ids_in("targets", s.targets, n, s.logits.size);

  std::vector<size_t> ids_shape;
  std::vector<int64_t> even;  // the places of a dense `ids`
  if (!ids.is_none()) {
    const Array array = checked<int32_t>("ids", ids);
    s.ids = static_cast<const int32_t*>(array.data());
    if (ids_indptr.is_none()) {
      if (array.ndim() != 2 || array.shape(0) != n) {
        wrong("ids without ids_indptr must have shape (" + std::to_string(n) + ", k), not " +
              shape_of(array));
      }
      ids_shape = {n, array.shape(1)};
      for (size_t i = 0; i <= n; ++i) even.push_back(static_cast<int64_t>(i * array.shape(1)));
      s.ids_indptr = even.data();
    } else {
      if (array.ndim() != 1) {
        wrong("ids with ids_indptr must have one dimension, not shape " + shape_of(array));
      }
      ids_shape = {array.shape(0)};
      s.ids_indptr = checked_indptr("ids_indptr", ids_indptr, n, array.size());
    }
    ids_in("ids", s.ids, array.size(), s.logits.size);
  } else if (!ids_indptr.is_none()) {
    wrong("ids_indptr was given without ids");
  }

  if (alt_k < 0) wrong("alt_k is " + std::to_string(alt_k) + ", not at least 0");
  if (!is_temperature(alt_temperature)) {
    wrong("alt_temperature is " + std::to_string(alt_temperature) + ", not finite and at least 0");
  }
  s.alt_k = alt_k;
  s.alt_temperature = alt_temperature;
  s.seed = seed;
  s.positions = vector_of<uint64_t>("positions", positions, n);
  if (alt_k && !s.positions) wrong("alt_k was given without positions");

  const auto k = static_cast<size_t>(topk), a = static_cast<size_t>(alt_k);
  nb::object logsumexp = result(true, {n}, s.logsumexp);
  nb::object target_logprobs = result(s.targets, {n}, s.target_logprobs);
  nb::object topk_ids = result(topk, {n, k}, s.topk_ids);
  nb::object topk_logprobs = result(topk, {n, k}, s.topk_logprobs);
  nb::object id_logprobs = result(!ids.is_none(), ids_shape, s.id_logprobs);
  nb::object alt_tokens = result(alt_k, {n, a}, s.alt_tokens);
  nb::object alt_logprobs = result(alt_k, {n, a}, s.alt_logprobs);
  int failed;
  {
    nb::gil_scoped_release release;
    failed = s.run(*chosen.load(), n_threads);
  }
  return nb::make_tuple(fault(s.logits, s.rows, failed), logsumexp, target_logprobs, topk_ids,
                        topk_logprobs, id_logprobs, alt_tokens, alt_logprobs);
}

nb::tuple sample_rows(nb::handle logits, nb::handle rows, nb::handle temperature,
                      nb::handle top_k, nb::handle top_p, nb::handle min_p, nb::handle edits,
                      nb::handle seed, nb::handle sample, nb::handle position, int topk,
                      int n_threads) {
  SampleRows s{};
  s.logits = matrix(logits);
  s.rows = checked_rows(rows, s.logits, s.n);
  const size_t n = s.n;
  check_threads(n_threads);
  check_topk(topk, s.logits.size);
  s.topk = topk;
  s.temperature = vector_of<float>("temperature", temperature, n);
  each_in("temperature", s.temperature, n, "finite and at least 0", is_temperature);
  s.top_k = vector_of<int32_t>("top_k", top_k, n);
  each_in("top_k", s.top_k, n, "-1 or at least 1", [](int32_t k) { return k == -1 || k >= 1; });
  s.top_p = vector_of<float>("top_p", top_p, n);
  each_in("top_p", s.top_p, n, "in (0, 1]", [](float p) { return p > 0 && p <= 1; });
  s.min_p = vector_of<float>("min_p", min_p, n);
  each_in("min_p", s.min_p, n, "in [0, 1]", [](float p) { return p >= 0 && p <= 1; });
  if (!edits.is_none()) s.edits = checked_edits(edits, n, s.logits.size);
  s.seed = vector_of<uint64_t>("seed", seed, n);
  s.sample = vector_of<uint64_t>("sample", sample, n);
  s.position = vector_of<uint64_t>("position", position, n);

  const auto k = static_cast<size_t>(topk);
  nb::object tokens = result(true, {n}, s.tokens);
  nb::object logprobs = result(true, {n}, s.logprobs);
  nb::object raw_logprobs = result(true, {n}, s.raw_logprobs);
  nb::object topk_ids = result(topk, {n, k}, s.topk_ids);
  nb::object topk_logprobs = result(topk, {n, k}, s.topk_logprobs);
  int failed;
  {
    nb::gil_scoped_release release;
    failed = s.run(*chosen.load(), n_threads);
  }
  return nb::make_tuple(fault(s.logits, s.rows, failed), tokens, logprobs, raw_logprobs, topk_ids,
                        topk_logprobs);
}

// Reads the rows and keeps the largest logit: the yardstick of the benchmarks.
float largest(nb::handle logits, int n_threads) {
  const Matrix m = matrix(logits);
  check_threads(n_threads);
  const SimdPath& simd = *chosen.load();
  std::vector<float> best(m.n_rows, -kInfinity);
  nb::gil_scoped_release release;
  for_rows(m.n_rows, m.size, n_threads, [&](int i, int threads) {
    const Row row(simd, m.row(i), m.size, threads);
    std::vector<float> parts(row.n_blocks / Row::kRange + 1, -kInfinity);
    row.for_blocks([&](int first, int last) {
      float& part = parts[first / Row::kRange];
      part = std::max(part, simd.maximum(row.block(first), last - first));
    });
    best[i] = *std::max_element(parts.begin(), parts.end());
  });
  return best.empty() ? -kInfinity : *std::max_element(best.begin(), best.end());
}

nb::object philox_block(PhiloxBlock counter, uint64_t key0, uint64_t key1) {
  uint64_t* data;
  nb::object block = result(true, {4}, data);
  const PhiloxBlock words = philox(counter, key0, key1);
  std::copy(words.begin(), words.end(), data);
  return block;
}

// --- for llama.cpp: functions and data by their addresses ----------------------------------------

// `addresses` has those of ggml's functions by their names, without the prefix.
nb::object address_of_graph_callback(const nb::dict& addresses) {
  ggml::Functions functions;
  const auto put = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(nb::cast<uintptr_t>(addresses[name]));
  };
  put(functions.init, "init");
  put(functions.free, "free");
  put(functions.new_tensor_4d, "new_tensor_4d");
  put(functions.set_name, "set_name");
  put(functions.flash_attn_ext, "flash_attn_ext");
  put(functions.set_rows, "set_rows");
  put(functions.cast, "cast");
  put(functions.mul_mat, "mul_mat");
  put(functions.mul_mat_id, "mul_mat_id");
  put(functions.gelu, "gelu");
  put(functions.gelu_quick, "gelu_quick");
  put(functions.geglu, "geglu");
  put(functions.geglu_swapped, "geglu_swapped");
  put(functions.geglu_split, "geglu_split");
  put(functions.geglu_quick_split, "geglu_quick_split");
  put(functions.type_traits, "get_type_traits");
  put(functions.custom_4d, "custom_4d");
  const GraphCallback callback = graph_callback(functions);
  return callback ? nb::cast(reinterpret_cast<uintptr_t>(callback)) : nb::none();
}

// A capsule owns the state, as it does an abort flag.
nb::capsule new_graph_state(bool products, bool of_all_types, bool of_results) {
  const Products ours = !products ? Products::none : of_all_types ? Products::all : Products::fast;
  return nb::capsule(new GraphState(ours, of_results),
                     [](void* state) noexcept { delete static_cast<GraphState*>(state); });
}

void begin_decode(const nb::capsule& state, const nb::object& abort) {
  const auto* flag = abort.is_none() ? nullptr : static_cast<AbortFlag*>(nb::cast<nb::capsule>(abort).data());
  static_cast<GraphState*>(state.data())->begin_decode(flag);
}

int64_t n_left(const nb::capsule& state) { return static_cast<GraphState*>(state.data())->n_left; }

uintptr_t address_of_graph_state(const nb::capsule& state) {
  return reinterpret_cast<uintptr_t>(state.data());
}

// A capsule owns the flag, so the flag lives as long as Python holds the capsule.
nb::capsule new_abort_flag() {
  return nb::capsule(new AbortFlag{false},
                     [](void* flag) noexcept { delete static_cast<AbortFlag*>(flag); });
}

void set_abort_flag(const nb::capsule& flag) { *static_cast<AbortFlag*>(flag.data()) = true; }

nb::tuple addresses_of_abort_flag(const nb::capsule& flag) {
  return nb::make_tuple(reinterpret_cast<uintptr_t>(&is_set), reinterpret_cast<uintptr_t>(&goes_on),
                        reinterpret_cast<uintptr_t>(flag.data()));
}

}  // namespace

const tinker::SimdPath& tinker::simd_path_in_use() { return *chosen.load(); }

NB_MODULE(_kernels, m) {
  m.def("score_rows", &score_rows, "logits"_a, "rows"_a.none(), "targets"_a.none(), "topk"_a,
        "ids"_a.none(), "ids_indptr"_a.none(), "alt_k"_a, "alt_temperature"_a, "seed"_a,
        "positions"_a.none(), "n_threads"_a);
  m.def("sample_rows", &sample_rows, "logits"_a, "rows"_a, "temperature"_a, "top_k"_a, "top_p"_a,
        "min_p"_a.none(), "edits"_a.none(), "seed"_a, "sample"_a, "position"_a, "topk"_a, "n_threads"_a);
  m.def("largest", &largest, "logits"_a, "n_threads"_a);
  m.def("philox", &philox_block, "counter"_a, "key0"_a, "key1"_a);
  m.def("graph_callback", &address_of_graph_callback, "addresses"_a);
  m.def("new_graph_state", &new_graph_state, "products"_a, "of_all_types"_a, "of_results"_a);
  m.def("begin_decode", &begin_decode, "state"_a, "abort"_a.none());
  m.def("n_left", &n_left, "state"_a);
  m.def("address_of_graph_state", &address_of_graph_state, "state"_a);
  m.def("new_abort_flag", &new_abort_flag);
  m.def("set_abort_flag", &set_abort_flag, "flag"_a);
  m.def("addresses_of_abort_flag", &addresses_of_abort_flag, "flag"_a);
  m.def("protect_range", &tinker::protect_range, "begin"_a, "end"_a);
  m.def("is_range_lost", &tinker::is_range_lost, "number"_a);
  m.def("renew_handler", &tinker::renew_handler);
  m.def("forget_range", &tinker::forget_range, "number"_a);
  m.def("simd_paths", &simd_paths);
  m.def("simd_path", &simd_path);
  m.def("use_simd_path", &use_simd_path, "name"_a);
  m.def("request_amx", &::request_amx);
}
