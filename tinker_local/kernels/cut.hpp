// Where the sorted order of a row is cut by top_k or top_p, without sorting the row.
#pragma once

#include <array>
#include <cstring>

#include "row.hpp"

namespace tinker {

// Keeps the logits above `threshold`, and those equal to it whose id is below `tie_end`.
struct Cut {
  float threshold = -kInfinity;
  int tie_end = std::numeric_limits<int>::max();
};

// The smallest prefix of the sorted order (ties by lower id) whose measure reaches `goal`. The
// measure is the tokens' weights (top_p) or, with scale 0, their number (top_k): the same search.
class CutSearch {
 public:
  CutSearch(const Row& row, float scale) : row_(row), scale_(scale) {}

  // `low` is a logit at which the goal is known to be reached, with `above_low` what is reached.
  // Each pass over the row measures at eight thresholds and keeps the gap that holds the cut.
  Cut find(double goal, float low, double above_low) const {
    float high = next_above(row_.largest);
    double above_high = 0;
    for (;;) {
      const double least = weight(low);
      if (next_above(low) >= high) return ties(low, std::ceil((goal - above_high) / least));
      if (above_low - above_high <= 1024 * least) return among(low, high, goal - above_high);
      const Thresholds thresholds = split(low, high);
      const Measures measures = above(thresholds);
      for (size_t i = 0; i < thresholds.size(); ++i) {
        if (measures[i] < goal) {
          high = thresholds[i];
          above_high = measures[i];
          break;
        }
        low = thresholds[i];
        above_low = measures[i];
      }
    }
  }

  // The measure of all logits that are at least `threshold`.
  double above(float threshold) const {
    Thresholds thresholds;
    thresholds.fill(threshold);
    return above(thresholds)[0];
  }

 private:
  using Thresholds = std::array<float, 8>;
  using Measures = std::array<double, 8>;

  // Measured in fixed ranges, added in their order: the same for any number of threads.
  Measures above(const Thresholds& thresholds) const {
    std::vector<Measures> parts(row_.n_blocks / kRange + 1, Measures{});
    row_.for_blocks([&](int first, int last) {
      Measures& part = parts[first / kRange];
      float weights[kBlock];
      std::fill(weights, weights + kBlock, 1.0f);
      for (int b = first; b < last; ++b) {
        if (row_.maxima[b] < thresholds[0]) continue;
        const float* x = row_.block(b);
        if (scale_ != 0) row_.simd.weigh(x, 1, row_.largest, scale_, weights);
        for (size_t i = 0; i < thresholds.size(); ++i) {
          part[i] += row_.simd.sum_at_least(x, weights, thresholds[i]);
        }
      }
    });
    Measures result{};
    for (const Measures& part : parts) {
      for (size_t i = 0; i < result.size(); ++i) result[i] += part[i];
    }
    return result;
  }

  double weight(float logit) const {
    if (scale_ == 0) return 1;
    float x[kBlock], weights[kBlock];
    std::fill(x, x + kBlock, logit);
    row_.simd.weigh(x, 1, row_.largest, scale_, weights);
    return weights[0];
  }

  // Seven thresholds even in value, which suits what models give; one that halves the floats in
  // between, which bounds the number of passes for anything else.
  static Thresholds split(float low, float high) {
    constexpr float max_float = std::numeric_limits<float>::max();
    Thresholds result;
    const double width = static_cast<double>(std::min(high, max_float)) - low;
    for (int i = 0; i < 7; ++i) result[i] = static_cast<float>(low + width * (i + 1) / 8);
    result[7] = from_order((order(low) + order(high)) / 2);
    for (float& t : result) t = std::clamp(t, next_above(low), std::nextafter(high, -kInfinity));
    std::sort(result.begin(), result.end());
    return result;
  }

  // Floats numbered in their order, and back.
  static int64_t order(float x) {
    int32_t word;
    std::memcpy(&word, &x, sizeof word);
    return word < 0 ? -static_cast<int64_t>(word & 0x7FFFFFFF) : word;
  }
  static float from_order(int64_t n) {
    const uint32_t word = n < 0 ? static_cast<uint32_t>(-n) | 0x80000000u : static_cast<uint32_t>(n);
    float x;
    std::memcpy(&x, &word, sizeof x);
    return x;
  }

  // Few logits are left: sort them and walk.
  Cut among(float low, float high, double goal) const {
    std::vector<float> logits;
    row_.for_between(low, high, [&](int id) { logits.push_back(row_.logit(id)); });
    if (logits.empty()) return {high, row_.size};
    std::sort(logits.begin(), logits.end(), std::greater<float>());
    double reached = 0;
    size_t n = 0;
    while (n < logits.size() && reached < goal) reached += weight(logits[n++]);
    n = std::max<size_t>(n, 1);
    const float last = logits[n - 1];
    return ties(last, static_cast<double>(n - (std::find(logits.begin(), logits.end(), last) -
                                               logits.begin())));
  }

  // The first n of the logits equal to `threshold`.
  Cut ties(float threshold, double n) const {
    Cut cut{threshold, row_.size};
    double seen = 0;
    row_.for_between(threshold, next_above(threshold), [&](int id) {
      if (++seen == std::max(n, 1.0)) cut.tie_end = id + 1;
    });
    return cut;
  }

  static constexpr int kRange = 64;
  const Row& row_;
  const float scale_;
};

}  // namespace tinker
