// One token drawn from each row of logits.
#pragma once

#include "score_rows.hpp"

namespace tinker {

// Arrays not asked for are null.
struct SampleRows {
  Matrix logits;
  int n;
  const int32_t* rows;
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const uint64_t *seed, *sample, *position;
  int topk;

  int32_t* tokens;
  float *logprobs, *raw_logprobs;
  int32_t* topk_ids;
  float* topk_logprobs;

  // Returns the first request whose row cannot be used, or -1.
  int run(const SimdPath& simd, int n_threads) const {
    FirstFailure failure;
    const std::vector<int> starts = runs();
    const int n_runs = static_cast<int>(starts.size()) - 1;
    for_rows(n_runs, logits.size, n_threads, [&](int i, int threads) {
      const int first = starts[i];
      const Settings settings = settings_of(first);
      Row row(simd, logits.row(rows[first]), logits.size, threads);
      if (row.scan(Distribution::scale_for_scan(settings, row.size))) {
        draw(first, starts[i + 1], row, settings);
      } else {
        failure.at(first);
      }
    });
    return failure.get();
  }

 private:
  Settings settings_of(int i) const { return {temperature[i], top_k[i], top_p[i]}; }

  // Requests in a run have the same row and settings: samples of one prompt. One distribution
  // serves them all.
  std::vector<int> runs() const {
    std::vector<int> starts;
    for (int i = 0; i < n; ++i) {
      if (!i || rows[i] != rows[i - 1] || !(settings_of(i) == settings_of(i - 1))) {
        starts.push_back(i);
      }
    }
    starts.push_back(n);
    return starts;
  }

  void draw(int first, int last, const Row& row, const Settings& settings) const {
    const Distribution distribution(row, settings);
    for (int i = first; i < last; ++i) {
      const int token = distribution.draw(uniform(seed[i], sample[i], position[i]));
      tokens[i] = token;
      logprobs[i] = static_cast<float>(distribution.logprob(token));
      raw_logprobs[i] = static_cast<float>(row.logprob(token));
      const size_t place = static_cast<size_t>(i) * topk;
      if (topk) put_top(row, topk, topk_ids + place, topk_logprobs + place);
    }
  }
};

}  // namespace tinker
