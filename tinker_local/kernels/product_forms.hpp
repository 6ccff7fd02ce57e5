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

// The activations of a block.
struct Inputs {
  const float* x[kRowsOfTile];
  int n;

  Inputs(const ggml::Tensor& inputs, const Rows& list, const Block& block) : n(static_cast<int>(block.n)) {
    for (int64_t r = 0; r < block.n; ++r) {
      x[r] = ggml::row_of(inputs, list.rows[static_cast<size_t>(block.first + r)].input);
    }
  }
};

// In a form for tiles: block by block, of the rows of a group.
template <class AnyRow>
struct InBlocks {
  using Row = AnyRow;
  using Kernel = Multiply<Row>;
  static constexpr int64_t kFew = kTiledRows;

  const ggml::Tensor& inputs;
  const Work<Row>& work;
  int64_t n_units, columns;

  // make_row(number, block, r, output) is row r of a block, as the kernel takes it.
  template <class MakeRow>
  InBlocks(const ggml::Tensor& node, Work<Row>& work, MakeRow make_row) : inputs(*node.src[1]), work(work), n_units(0) {
    work.blocks.clear();
    for (const Group& group : work.list.groups) {
      for (int64_t i = 0; i < group.n; i += kRowsOfTile, ++n_units) {
        const Block block{group.first + i, std::min<int64_t>(kRowsOfTile, group.n - i)};
        work.blocks.push_back(block);
        for (int64_t r = 0; r < block.n; ++r) {
          float* output = work.list.rows[static_cast<size_t>(block.first + r)].output;
          work.rows.push_back(make_row(n_units, block, r, output));
        }
      }
    }
    const int64_t most = most_rows(work.list.groups);
    columns = most > kFew ? kTiledColumns : kStripColumns;
    work.panel.resize(tiled_scratch(most));
  }

  Inputs inputs_of(int64_t unit) const { return {inputs, work.list, work.blocks[static_cast<size_t>(unit)]}; }

  const Row& first_row(int64_t unit) const {
    return work.rows[static_cast<size_t>(work.blocks[static_cast<size_t>(unit)].first)];
  }
};

// In two numbers of bfloat16 each, for tiles with plain weights.
struct Tiled : InBlocks<TiledRow> {
  static constexpr int kNumber = 3;

  static int64_t width(const ggml::Tensor& node) { return (node.src[1]->ne[0] + kRun - 1) / kRun * kRun; }
  static int64_t n_numbers(const ggml::Tensor& node) { return ggml::n_rows_of(node) * width(node); }
  static size_t n_bytes(const ggml::Tensor& node) {
    return static_cast<size_t>(n_numbers(node)) * 2 * sizeof(uint16_t) + kLine;
  }

  Tiled(const ggml::Tensor& node, std::vector<char>& memory, Work<Row>& work)
      : InBlocks(node, work, [&](int64_t, const Block& block, int64_t r, float* output) {
          auto* numbers = reinterpret_cast<uint16_t*>(on_line(memory.data()));
          return Row{numbers + 2 * (block.first * width(node) + r), block.n, output};
        }) {}

  void prepare(int64_t unit) const {
    simd_path_in_use().split_block(inputs_of(unit).x, inputs.ne[0], first_row(unit));
  }
};

static inline void pack(const Inputs& rows, int64_t n, GroupStretch* to) {
  simd_path_in_use().pack_group_block(rows.x, rows.n, n, to);
}
static inline void pack(const Inputs& rows, int64_t n, SuperStretch* to) {
  simd_path_in_use().pack_super_block(rows.x, rows.n, n, to);
}

// In integers of two parts, for tiles with packed weights.
template <class Stretch>
struct Stretched : InBlocks<StretchRow<Stretch>> {
  using Row = StretchRow<Stretch>;
  static constexpr int kNumber = std::is_same_v<Stretch, GroupStretch> ? 4 : 5;

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
      : InBlocks<Row>(node, work, [&](int64_t number, const Block&, int64_t, float* output) {
          return Row{reinterpret_cast<Stretch*>(on_line(memory.data())) + number * n_stretches(node), output};
        }) {}

  void prepare(int64_t unit) const {
    pack(this->inputs_of(unit), this->inputs.ne[0], this->first_row(unit).stretches);
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
