// Attention in AMX's tiles, over cells of float16.
#pragma once

#include "attention.hpp"

namespace tinker::amx {

// Floats of scratch memory that it needs.
size_t attention_scratch(int key_size, int value_size);

void attend(const AttentionCells& cells, const AttentionRow* rows, int n_rows, float* scratch);
void attend_part(const AttentionCells& cells, const AttentionRow* rows, int n_rows, int part, float* scratch,
                 float* sums);

}  // namespace tinker::amx
