// Products with packed weights: how they are cut into stretches of 256 weights. What is computed of a stretch,
// group_product_kernels.hpp and super_block_product_kernels.hpp say (see product.hpp for the order of the sums).
//
// Few rows: four columns at a time, whose integers are taken apart in registers. More rows: 48 columns of a stretch
// are unpacked to a panel once, in which neighbouring lanes are neighbouring columns. Tiles of rows and columns
// are summed in registers.
//
// Over `Lanes`, `Strip` of kStrip floats, `Ints`, as many integers, and `Four` floats, one of each column, to which
// the `Products` of four columns are joined. The including file defines them.

// Plain C++ has no registers for tiles, nor for rows together; there they would only take long to compile.
constexpr bool kHasTiles = kTileRows > 0;
constexpr int kRowsTogether = kHasTiles ? 4 : 1;  // of few rows
constexpr int kWidth = tinker::kPackedColumns;    // columns of a panel

// Short loops whose numbers are known when the code is compiled; and functions that are called.
#if defined(__clang__)
#define TINKER_UNROLLED _Pragma("clang loop unroll(full)")
#define TINKER_APART __attribute__((noinline))
#elif defined(__GNUC__)
#define TINKER_UNROLLED _Pragma("GCC unroll 16")
#define TINKER_APART __attribute__((noinline))
#else
#define TINKER_UNROLLED
#define TINKER_APART
#endif

inline Lanes magnitude(Lanes a) { return max(a, all(0.0f) - a); }

// NaN if one of the activations is no number, else 0.
inline float no_number(Lanes a, Lanes b) {
  const Lanes zero = all(0.0f);
  return sum(fma(a, zero, b * zero));
}

// A stretch is read soon.
template <class Type>
inline void prefetch_stretch(const uint8_t* stretch) {
  for (int i = 0; i < kBytesOfStretch<Type>; i += 64) prefetch(stretch + i);
}

// The next stretches of n columns are. All 48 at once would be more than a processor fetches meanwhile: it would wait.
template <class Type>
inline void prefetch_next(const uint8_t* const (&stretches)[kWidth], int first, int n) {
  for (int c = first; c < first + n; ++c) prefetch_stretch<Type>(stretches[c] + kBytesOfStretch<Type>);
}

#include "group_product_kernels.hpp"
#include "super_block_product_kernels.hpp"

inline int runs_of_stretch(int64_t k, int64_t size) {
  const int64_t left = size - k < tinker::kStretch ? size - k : tinker::kStretch;
  return static_cast<int>(left / tinker::kRun);
}

// --- few rows ---

// Columns first .. first + n of which there are at most four; what is left of four is another's once more.
template <class Type, int R>
inline void dot_four(const tinker::Weights& weights, int64_t first, int n, const typename Type::Row* rows) {
  const char* columns[4];
  for (int c = 0; c < 4; ++c) columns[c] = weights.data + static_cast<size_t>(first + (c < n ? c : 0)) * weights.stride;
  Four sums[R];
  for (int r = 0; r < R; ++r) sums[r] = four(0.0f);
  for (int64_t k = 0; k < weights.size; k += tinker::kStretch) {
    const uint8_t* stretches[4];
    for (int c = 0; c < 4; ++c) {
      stretches[c] = stretch_of<Type>(columns[c], k);
      prefetch_stretch<Type>(stretches[c] + 4 * weights.stride);
    }
    dot_stretch<Type, R>(stretches, k, runs_of_stretch(k, weights.size), rows, sums);
  }
  for (int r = 0; r < R; ++r) {
    float found[4];
    store_four(found, sums[r]);
    memcpy(rows[r].output + first, found, static_cast<size_t>(n) * sizeof(float));
  }
}

// R rows at a time, then what is left of them.
template <class Type, int R>
inline void dot_rows(const tinker::Weights& weights, int64_t first, int n, const typename Type::Row* rows, int n_rows) {
  for (; n_rows >= R; rows += R, n_rows -= R) dot_four<Type, R>(weights, first, n, rows);
  if constexpr (R > 1) {
    if (n_rows) dot_rows<Type, R - 1>(weights, first, n, rows, n_rows);
  }
}

template <class Type>
void dot_packed(const tinker::Weights& weights, int64_t first, int n, const typename Type::Row* rows, int n_rows) {
  for (int c = 0; c < n; c += 4) dot_rows<Type, kRowsTogether>(weights, first + c, n - c < 4 ? n - c : 4, rows, n_rows);
}

// --- more rows ---

template <class Row>
struct PanelFor;
template <>
struct PanelFor<tinker::PackedRow> {
  using Panel = GroupPanel;
};
template <>
struct PanelFor<tinker::SuperRow> {
  using Panel = SuperPanel;
};
template <class Type>
using PanelOf = typename PanelFor<typename Type::Row>::Panel;

// Columns behind the last are the last one's once more.
template <class Type>
inline void unpack_panel(const tinker::Weights& weights, int64_t first, int n_columns, int64_t k, int n_runs,
                         PanelOf<Type>& panel) {
  const uint8_t* stretches[kWidth];
  for (int c = 0; c < kWidth; ++c) {
    const int64_t column = first + (c < n_columns ? c : n_columns - 1);
    stretches[c] = stretch_of<Type>(weights.data + static_cast<size_t>(column) * weights.stride, k);
  }
  unpack_stretches<Type>(stretches, n_runs, panel);
}

// A strip's columns, or as many as there are. Copies of a known size are faster.
template <int width>
inline void copy_columns(const float* from, int n_columns, float* to) {
  if (n_columns >= width) {
    memcpy(to, from, width * sizeof(float));
  } else {
    memcpy(to, from, static_cast<size_t>(n_columns) * sizeof(float));
  }
}

template <class Type, int R>
inline void multiply_packed_tile(const typename Type::Row* rows, int64_t k, int n_runs, const PanelOf<Type>& panel,
                                 int64_t first, int n_columns) {
  constexpr int width = kTileStrips * kStrip;
  for (int c = 0; c < n_columns; c += width) {
    float sums[R][width] = {};
    for (int r = 0; k && r < R; ++r) copy_columns<width>(rows[r].output + first + c, n_columns - c, sums[r]);
    multiply_strips<Type, R, kTileStrips>(rows, k, n_runs, panel, c, sums);
    for (int r = 0; r < R; ++r) copy_columns<width>(sums[r], n_columns - c, rows[r].output + first + c);
  }
}

// R rows at a time, then what is left of them, in fewer.
template <class Type, int R>
inline void multiply_packed_panel(const typename Type::Row* rows, int n_rows, int64_t k, int n_runs,
                                  const PanelOf<Type>& panel, int64_t first, int n_columns) {
  for (; n_rows >= R; rows += R, n_rows -= R) {
    multiply_packed_tile<Type, R>(rows, k, n_runs, panel, first, n_columns);
  }
  if constexpr (R > 1) {
    if (n_rows) multiply_packed_panel<Type, (R + 1) / 2>(rows, n_rows, k, n_runs, panel, first, n_columns);
  }
}

template <class Type>
void multiply_by_panels(const tinker::Weights& weights, int64_t first, int n_columns, const typename Type::Row* rows,
                        int n_rows, float* memory) {
  static_assert(sizeof(PanelOf<Type>) <= tinker::kPanelSize * sizeof(float));
  PanelOf<Type>& panel = *reinterpret_cast<PanelOf<Type>*>(memory);
  for (int done = 0; done < n_columns; done += kWidth) {
    const int columns = n_columns - done < kWidth ? n_columns - done : kWidth;
    for (int64_t k = 0; k < weights.size; k += tinker::kStretch) {
      const int n_runs = runs_of_stretch(k, weights.size);
      unpack_panel<Type>(weights, first + done, columns, k, n_runs, panel);
      multiply_packed_panel<Type, kTileRows>(rows, n_rows, k, n_runs, panel, first + done, columns);
    }
  }
}

// Rows up to which columns are taken apart in registers: weights of eight bits are so quickly.
template <class Type>
constexpr int most_few_rows() {
  return Type::kType == Q8_0::kType ? kMostFewRowsOfBytes : kMostFewRows;
}

template <class Type>
void multiply_packed(const tinker::Weights& weights, int64_t first, int n_columns, const typename Type::Row* rows,
                     int n_rows, float* memory) {
  if constexpr (kHasTiles) {
    const bool are_few = n_rows <= most_few_rows<Type>();
    if (!are_few) return multiply_by_panels<Type>(weights, first, n_columns, rows, n_rows, memory);
  }
  dot_packed<Type>(weights, first, n_columns, rows, n_rows);
}

template <class Row, class... Types>
tinker::Multiply<Row> find_packed(int32_t type) {
  struct Entry {
    int32_t type;
    tinker::Multiply<Row> multiply;
  };
  static constexpr Entry table[] = {{Types::kType, multiply_packed<Types>}...};
  for (const Entry& entry : table) {
    if (entry.type == type) return entry.multiply;
  }
  return nullptr;
}

// The kernel for a type of packed weights; null if there is none here.
tinker::Multiply<tinker::PackedRow> group_product(int32_t type) {
  return find_packed<tinker::PackedRow, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS, MXFP4>(type);
}
tinker::Multiply<tinker::SuperRow> super_block_product(int32_t type) {
  return find_packed<tinker::SuperRow, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K>(type);
}
