// What a matrix product is computed of: rows of activations, and weights as a GGUF file has them.
//
// The promise: a row's numbers depend on that row and the weights alone, on every machine. So a number is
// summed in one order, however many rows there are and whoever computes them: sixteen lanes, of which lane i
// takes the products i, i + 16, i + 32 .. by fused multiplications and additions. After every 512 products
// the lanes are joined in halves, and the sums are added in order. Activations are not rounded.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tinker {

constexpr int kColumns = 24;  // columns whose weights are unpacked together, for many rows
constexpr int kSpan = 512;    // products after which the lanes are joined; a multiple of every block of weights

// One row of activations, and its outputs. After the last number there are zeros up to whole lanes.
struct ProductRow {
  const float* input;
  float* output;
};

// float32 from packed weights: ggml_to_float_t.
using ToFloat = void (*)(const void* from, float* to, int64_t n);

// A matrix of weights. Each of its rows makes a column of the product.
struct Weights {
  const char* data;
  size_t stride;       // bytes from one row to the next
  int64_t size;        // numbers of a row
  int32_t type;        // enum ggml_type
  size_t span_stride;  // bytes of 512 numbers
  ToFloat to_float;    // ggml's, for types that no kernel here unpacks
};

}  // namespace tinker
