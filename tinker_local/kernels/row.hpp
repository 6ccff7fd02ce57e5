// One row of logits, summarised by block. One pass over memory gives each block's largest logit and the sum
// of its weights. What is asked later mostly needs only the few blocks that the summary names.
//
// Sums are added in an order that does not depend on the number of threads: lanes within a block, blocks in
// their order. So any number of threads gives the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "simd_path.hpp"
#include "pool.hpp"

namespace tinker {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Candidate {
  float logit;
  int32_t id;
};

inline bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

inline float next_above(float x) { return std::nextafter(x, kInfinity); }

// The weight of each of a few logits.
inline std::vector<float> weights_of(const SimdPath& simd, std::vector<float> logits,
                                     float reference, float scale) {
  const size_t n = logits.size(), n_blocks = (n + kBlock - 1) / kBlock;
  logits.resize(n_blocks * kBlock, -kInfinity);
  std::vector<float> weights(logits.size());
  simd.weigh(logits.data(), static_cast<int>(n_blocks), reference, scale, weights.data());
  weights.resize(n);
  return weights;
}

// How many of `n_threads` are worth waking to read `n` logits (65,536 take about 15 us).
inline int useful_threads(int n_threads, int64_t n) {
  return static_cast<int>(std::clamp<int64_t>(n / 65536, 1, n_threads));
}

class Row {
 public:
  Row(const SimdPath& simd, const float* logits, int size, int n_threads)
      : simd(simd), size(size), n_blocks((size + kBlock - 1) / kBlock), logits_(logits),
        n_whole_(size / kBlock), n_threads_(useful_threads(n_threads, size)) {
    if (n_whole_ < n_blocks) {
      std::fill(tail_, tail_ + kBlock, -kInfinity);
      std::copy(logits + n_whole_ * kBlock, logits + size, tail_);
    }
  }

  static constexpr int kRange = 32;  // blocks that a thread takes at a time

  const SimdPath& simd;
  const int size, n_blocks;
  std::vector<float> maxima;  // of each block
  float largest = -kInfinity;
  double log_sum = 0;  // log(sum(exp(row)))

  // The first pass. False if the row holds NaN or +inf or is all -inf. `other_scale`, unless 0,
  // has its weights summed in the same pass; see `masses`.
  bool scan(float other_scale) {
    maxima.resize(n_blocks);
    sums_.resize(n_blocks);
    other_sums_.resize(other_scale ? n_blocks : 0);
    for_blocks([&](int first, int last) {
      simd.scan(block(first), last - first, kLog2E, &maxima[first], &sums_[first], other_scale,
                other_scale ? &other_sums_[first] : nullptr);
    });
    largest = *std::max_element(maxima.begin(), maxima.end());
    if (!std::isfinite(largest)) return false;
    const double total = total_of(masses(kLog2E, false));
    log_sum = largest + std::log(total);
    return !std::isnan(total);
  }

  // Each block's weights summed, with the row's largest logit as the reference.
  std::vector<double> masses(float scale, bool other) const {
    const std::vector<float>& sums = other ? other_sums_ : sums_;
    const std::vector<float> relative = weights_of(simd, maxima, largest, scale);
    std::vector<double> result(n_blocks);
    for (int b = 0; b < n_blocks; ++b) result[b] = static_cast<double>(sums[b]) * relative[b];
    return result;
  }

  static double total_of(const std::vector<double>& masses) {
    double total = 0;
    for (double mass : masses) total += mass;
    return total;
  }

  double logprob(int id) const { return logits_[id] - log_sum; }
  float logit(int id) const { return logits_[id]; }

  const float* block(int b) const { return b < n_whole_ ? logits_ + b * kBlock : tail_; }

  // f(first, last) over ranges of blocks that together are the row, on several threads. Ranges are
  // the same for any number of threads, contiguous in memory, and begin at multiples of kRange;
  // only the last block, where it is filled up, comes by itself, after the others.
  template <class F>
  void for_blocks(F&& f) const {
    const int n_ranges = (n_whole_ + kRange - 1) / kRange;
    Pool::run(n_threads_, n_ranges,
              [&](int i) { f(i * kRange, std::min(n_whole_, (i + 1) * kRange)); });
    if (n_whole_ < n_blocks) f(n_whole_, n_blocks);
  }

  // f(id) for every logit in [low, high), by rising id. `low` may be raised meanwhile.
  template <class F>
  void for_between(const float& low, float high, F&& f) const {
    int positions[kBlock];
    for (int b = 0; b < n_blocks; ++b) {
      if (maxima[b] < low) continue;
      const int n = simd.find(block(b), low, high, positions);
      for (int i = 0; i < n; ++i) {
        const int id = b * kBlock + positions[i];
        if (id < size) f(id);  // what fills up the last block is no token
      }
    }
  }

  // The k best, best first. The k-th largest block maximum bounds the k-th largest logit from
  // below, so that only blocks reaching it are read again; the bound rises as candidates pile up.
  std::vector<Candidate> top(int k) const {
    k = std::min(k, size);
    float threshold = k <= n_blocks ? kth_largest_maximum(k) : -kInfinity;
    std::vector<Candidate> found;
    const size_t room = 2 * static_cast<size_t>(k) + 8 * kBlock;
    for_between(threshold, kInfinity, [&](int id) {
      if (logits_[id] < threshold) return;
      found.push_back({logits_[id], id});
      if (found.size() == room) {
        std::nth_element(found.begin(), found.begin() + (k - 1), found.end(), better);
        found.resize(k);
        threshold = next_above(found.back().logit);
      }
    });
    const auto end = found.begin() + std::min<size_t>(k, found.size());
    if (end != found.end()) std::nth_element(found.begin(), end - 1, found.end(), better);
    std::sort(found.begin(), end, better);
    found.erase(end, found.end());
    return found;
  }

 private:
  float kth_largest_maximum(int k) const {
    std::vector<float> best(k);
    std::partial_sort_copy(maxima.begin(), maxima.end(), best.begin(), best.end(),
                           std::greater<float>());
    return best.back();
  }

  const float* const logits_;
  const int n_whole_, n_threads_;
  std::vector<float> sums_, other_sums_;
  alignas(64) float tail_[kBlock];
};

}  // namespace tinker
