// Forms of activations that kernels of matrix products want: how much memory a node's take, and which part is made at
// once.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "product.hpp"
#include "product_rows.hpp"
#include "simd_path.hpp"

namespace tinker {

static inline void pack(const float* x, int64_t n, int16_t* numbers, Run* scales) {
  simd_path_in_use().pack_groups(x, n, numbers, scales);
}
static inline void pack(const float* x, int64_t n, int8_t* numbers, SuperRun* scales) {
  simd_path_in_use().pack_super_blocks(x, n, numbers, scales);
}

// In integers, for packed weights: row by row, all numbers, then all scales.
template <class AnyRow>
struct Packed {
  using Row = AnyRow;
  using Kernel = Multiply<Row>;
  using Number = typename Row::Number;
  using Scale = typename Row::Scale;
  static constexpr int kNumber = sizeof(Number);
  static constexpr int64_t columns = kPackedColumns, kFew = 1;

  const ggml::Tensor& inputs;
  int64_t n_units;  // rows
  Number* numbers;
  Scale* scales;

  static int64_t n_numbers(const ggml::Tensor& node) { return ggml::n_rows_of(*node.src[1]) * node.src[1]->ne[0]; }

  static size_t n_bytes(const ggml::Tensor& node) {
    const auto n = static_cast<size_t>(n_numbers(node));
    return n * sizeof(Number) + n / Row::kScaled * sizeof(Scale);
  }

  Packed(const ggml::Tensor& node, std::vector<char>& memory, Work<Row>& work)
      : inputs(*node.src[1]), n_units(ggml::n_rows_of(inputs)),
        numbers(reinterpret_cast<Number*>(memory.data())),
        scales(reinterpret_cast<Scale*>(numbers + n_numbers(node))) {
    for (const Rows::Row& row : work.list.rows) {
      work.rows.push_back({numbers_of(row.input), scales_of(row.input), row.output});
    }
    work.panel.resize(kPanelSize);
  }

  Number* numbers_of(int64_t row) const { return numbers + row * inputs.ne[0]; }
  Scale* scales_of(int64_t row) const { return scales + row * (inputs.ne[0] / Row::kScaled); }

  void prepare(int64_t row) const {
    pack(ggml::row_of(inputs, row), inputs.ne[0], numbers_of(row), scales_of(row));
  }
};

template <class F>
static inline void each_block(const Rows& list, F f) {
  for (const Group& group : list.groups) {
    for (int64_t i = 0; i < group.n; i += kRowsOfTile) {
      f(Block{group.first + i, std::min<int64_t>(kRowsOfTile, group.n - i)});
    }
  }
}

// The activations of a block.
struct Inputs {
  const float* x[kRowsOfTile];

  Inputs(const ggml::Tensor& inputs, const Rows& list, const Block& block) {
    for (int64_t r = 0; r < block.n; ++r) {
      x[r] = ggml::row_of(inputs, list.rows[static_cast<size_t>(block.first + r)].input);
    }
  }
};

// In two numbers of bfloat16 each, for tiles with plain weights.
struct Tiled {
  using Row = TiledRow;
  using Kernel = Multiply<TiledRow>;
  static constexpr int kNumber = 3;
  static constexpr int64_t kFew = kTiledRows;

  const ggml::Tensor& inputs;
  const Work<Row>& work;
  int64_t n_units, columns;

  static int64_t width(const ggml::Tensor& node) { return (node.src[1]->ne[0] + kRun - 1) / kRun * kRun; }
  static int64_t n_numbers(const ggml::Tensor& node) { return ggml::n_rows_of(node) * width(node); }
  static size_t n_bytes(const ggml::Tensor& node) {
    return static_cast<size_t>(n_numbers(node)) * 2 * sizeof(uint16_t) + kLine;
  }

  Tiled(const ggml::Tensor& node, std::vector<char>& memory, Work<Row>& work)
      : inputs(*node.src[1]), work(work) {
    auto* numbers = reinterpret_cast<uint16_t*>(on_line(memory.data()));
    work.blocks.clear();
    each_block(work.list, [&](const Block& block) {
      work.blocks.push_back(block);
      for (int64_t r = 0; r < block.n; ++r) {
        work.rows.push_back({numbers + 2 * r, block.n, work.list.rows[static_cast<size_t>(block.first + r)].output});
      }
      numbers += 2 * block.n * width(node);
    });
    n_units = static_cast<int64_t>(work.blocks.size());
    const int64_t most = most_rows(work.list.groups);
    columns = most > kFew ? kTiledColumns : kStripColumns;
    work.panel.resize(tiled_scratch(most));
  }

  void prepare(int64_t unit) const {
    const Block& block = work.blocks[static_cast<size_t>(unit)];
    const Inputs rows(inputs, work.list, block);
    simd_path_in_use().split_block(rows.x, inputs.ne[0], work.rows[static_cast<size_t>(block.first)]);
  }
};

static inline void pack(const Inputs& rows, int n_rows, int64_t n, GroupStretch* to) {
  simd_path_in_use().pack_group_block(rows.x, n_rows, n, to);
}
static inline void pack(const Inputs& rows, int n_rows, int64_t n, SuperStretch* to) {
  simd_path_in_use().pack_super_block(rows.x, n_rows, n, to);
}

// In integers that are sums of numbers of bfloat16, for tiles with packed weights.
template <class Stretch>
struct Stretched {
  using Row = StretchRow<Stretch>;
  using Kernel = Multiply<Row>;
  static constexpr int kNumber = std::is_same_v<Stretch, GroupStretch> ? 4 : 5;
  static constexpr int64_t kFew = kTiledRows;

  const ggml::Tensor& inputs;
  const Work<Row>& work;
  int64_t n_units, columns;

  // As many blocks as there may be: each matrix may have one that is not full.
  static int64_t n_blocks(const ggml::Tensor& node) {
    const int64_t n_rows = ggml::n_rows_of(node), n_matrices = node.src[0]->ne[2] * node.src[0]->ne[3];
    return n_rows / kRowsOfTile + std::min(n_rows, n_matrices);
  }
  static int64_t n_stretches(const ggml::Tensor& node) { return (node.src[1]->ne[0] + kStretch - 1) / kStretch; }
  static int64_t n_numbers(const ggml::Tensor& node) { return ggml::n_rows_of(node) * node.src[1]->ne[0]; }
  static size_t n_bytes(const ggml::Tensor& node) {
    return static_cast<size_t>(n_blocks(node) * n_stretches(node)) * sizeof(Stretch) + kLine;
  }

  Stretched(const ggml::Tensor& node, std::vector<char>& memory, Work<Row>& work)
      : inputs(*node.src[1]), work(work) {
    auto* stretches = reinterpret_cast<Stretch*>(on_line(memory.data()));
    work.blocks.clear();
    each_block(work.list, [&](const Block& block) {
      work.blocks.push_back(block);
      for (int64_t r = 0; r < block.n; ++r) {
        work.rows.push_back({stretches, work.list.rows[static_cast<size_t>(block.first + r)].output});
      }
      stretches += n_stretches(node);
    });
    n_units = static_cast<int64_t>(work.blocks.size());
    const int64_t most = most_rows(work.list.groups);
    columns = most > kFew ? kTiledColumns : kStripColumns;
    work.panel.resize(tiled_scratch(most));
  }

  void prepare(int64_t unit) const {
    const Block& block = work.blocks[static_cast<size_t>(unit)];
    Stretch* to = work.rows[static_cast<size_t>(block.first)].stretches;
    pack(Inputs(inputs, work.list, block), static_cast<int>(block.n), inputs.ne[0], to);
  }
};

// The form that a kernel wants.
template <class Kernel>
struct FormOf;
template <class Row>
struct FormOf<Multiply<Row>> {
  using Form = Packed<Row>;
};
template <>
struct FormOf<Multiply<TiledRow>> {
  using Form = Tiled;
};
template <class Stretch>
struct FormOf<Multiply<StretchRow<Stretch>>> {
  using Form = Stretched<Stretch>;
};
template <class Kernel>
using FormFor = typename FormOf<Kernel>::Form;

}  // namespace tinker
