// Logits of a few ids, changed before a token is drawn: biases and penalties.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tinker {

// Those of request i are at places indptr[i] to indptr[i + 1] - 1. Without any, indptr is null.
struct LogitEdits {
  const int64_t* indptr;
  const int32_t* ids;
  const float *bias, *repetition, *penalty;

  bool any(int i) const { return indptr && indptr[i] < indptr[i + 1]; }

  // A copy of the row with the edits of request i. All are of the row as it was given, so that a later
  // edit of an id replaces an earlier one.
  std::vector<float> applied(int i, const float* row, int size) const {
    std::vector<float> result(row, row + size);
    for (int64_t j = indptr[i]; j < indptr[i + 1]; ++j) result[ids[j]] = edited(row[ids[j]], j);
    return result;
  }

 private:
  // Computed in double and rounded once. What is finite stays so.
  float edited(float logit, int64_t j) const {
    if (!std::isfinite(logit)) return logit;
    double x = static_cast<double>(logit) + bias[j];
    x = x > 0 ? x / repetition[j] : x * repetition[j];
    constexpr float most = std::numeric_limits<float>::max();
    return static_cast<float>(std::clamp<double>(x - penalty[j], -most, most));
  }
};

}  // namespace tinker
