// Log-probabilities of rows of logits.
#pragma once

#include "distribution.hpp"
#include "philox.hpp"

namespace tinker {

// The first request, in the order given, whose row cannot be used.
class FirstFailure {
 public:
  void at(int request) {
    for (int seen = first_; request < seen && !first_.compare_exchange_weak(seen, request);) {
    }
  }
  int get() const { return first_ == kNone ? -1 : first_.load(); }

 private:
  static constexpr int kNone = std::numeric_limits<int>::max();
  std::atomic<int> first_{kNone};
};

struct Matrix {
  const float* data;
  int n_rows, size;
  const float* row(int i) const { return data + static_cast<size_t>(i) * size; }
};

// task(i, threads) for each of some rows: many are shared among the threads, one row each; few are
// done in turn, each by several threads.
template <class F>
void for_rows(int n_rows, int size, int n_threads, F&& task) {
  const int useful = useful_threads(n_threads, size);
  if (n_rows < useful || (n_rows < 2 * useful && useful == n_threads)) {
    for (int i = 0; i < n_rows; ++i) task(i, useful);
  } else {
    const int64_t n_logits = static_cast<int64_t>(n_rows) * size;
    Pool::run(useful_threads(n_threads, n_logits), n_rows, [&](int i) { task(i, 1); });
  }
}

inline void put_top(const Row& row, int k, int32_t* ids, float* logprobs) {
  const std::vector<Candidate> top = row.top(k);
  for (int j = 0; j < k; ++j) {
    ids[j] = top[j].id;
    logprobs[j] = static_cast<float>(row.logprob(top[j].id));
  }
}

// Arrays not asked for are null.
struct ScoreRows {
  Matrix logits;
  int n;
  const int32_t *rows, *targets, *ids;
  const int64_t* ids_indptr;  // n + 1 places in `ids`
  int topk, alt_k;
  float alt_temperature;
  uint64_t seed;
  const uint64_t* positions;

  double* logsumexp;
  float* target_logprobs;
  int32_t* topk_ids;
  float *topk_logprobs, *id_logprobs;
  int32_t* alt_tokens;
  float* alt_logprobs;

  // Returns the first request whose row cannot be used, or -1.
  int run(const SimdPath& simd, int n_threads) const {
    FirstFailure failure;
    for_rows(n, logits.size, n_threads, [&](int i, int threads) {
      Row row(simd, logits.row(rows ? rows[i] : i), logits.size, threads);
      const Settings alt{alt_temperature};
      if (row.scan(alt_k ? Distribution::scale_for_scan(alt, row.size) : 0)) {
        score(i, row, alt);
      } else {
        failure.at(i);
      }
    });
    return failure.get();
  }

 private:
  void score(int i, const Row& row, const Settings& alt) const {
    logsumexp[i] = row.log_sum;
    if (targets) target_logprobs[i] = logprob(row, targets[i], NAN);
    if (topk) {
      const size_t first = static_cast<size_t>(i) * topk;
      put_top(row, topk, topk_ids + first, topk_logprobs + first);
    }
    if (ids) {
      for (int64_t j = ids_indptr[i]; j < ids_indptr[i + 1]; ++j) {
        id_logprobs[j] = logprob(row, ids[j], 0);
      }
    }
    if (alt_k) {
      const Distribution distribution(row, alt);
      for (int j = 0; j < alt_k; ++j) {
        const size_t place = static_cast<size_t>(i) * alt_k + j;
        alt_tokens[place] = distribution.draw(uniform(seed, j, positions[i]));
        alt_logprobs[place] = logprob(row, alt_tokens[place], 0);
      }
    }
  }

  static float logprob(const Row& row, int32_t id, float without) {
    return id < 0 ? without : static_cast<float>(row.logprob(id));
  }
};

}  // namespace tinker
