// One token drawn from each row of logits.
#pragma once

#include "logit_edits.hpp"
#include "score_rows.hpp"

namespace tinker {

// Arrays not asked for are null.
struct SampleRows {
  Matrix logits;
  int n;
  const int32_t* rows;
  const float* temperature;
  const int32_t* top_k;
  const float *top_p, *min_p;
  LogitEdits edits;
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
      if (!row.scan(Distribution::scale_for_scan(settings, row.size))) {
        failure.at(first);
      } else if (edits.any(first)) {
        draw_edited(first, row, settings, threads);
      } else {
        draw(first, starts[i + 1], row, row, settings);
      }
    });
    return failure.get();
  }

 private:
  Settings settings_of(int i) const {
    return {temperature[i], top_k[i], top_p[i], min_p ? min_p[i] : 0};
  }

  // Requests in a run have the same row and settings, and no edits: samples of one prompt. One
  // distribution serves them all.
  std::vector<int> runs() const {
    std::vector<int> starts;
    for (int i = 0; i < n; ++i) {
      if (!i || rows[i] != rows[i - 1] || !(settings_of(i) == settings_of(i - 1)) || edits.any(i - 1) ||
          edits.any(i)) {
        starts.push_back(i);
      }
    }
    starts.push_back(n);
    return starts;
  }

  void draw_edited(int i, const Row& row, const Settings& settings, int n_threads) const {
    const std::vector<float> changed = edits.applied(i, logits.row(rows[i]), row.size);
    Row edited(row.simd, changed.data(), row.size, n_threads);
    edited.scan(Distribution::scale_for_scan(settings, row.size));
    draw(i, i + 1, row, edited, settings);
  }

  // Draws from `drawn_from`; `row` is the model's own.
  void draw(int first, int last, const Row& row, const Row& drawn_from, const Settings& settings) const {
    const Distribution distribution(drawn_from, settings);
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
