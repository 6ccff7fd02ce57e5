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

  bool keeps(float logit, int id) const {
    return logit > threshold || (logit == threshold && id < tie_end);
  }
};

// The smallest prefix of the sorted order (ties by lower id) whose measure reaches `goal`. The
// measure is the tokens' weights (top_p) or, with scale 0, which makes every weight 1, their number
// (top_k): the same search.
class CutSearch {
 public:
  CutSearch(const Row& row, float scale)
      : row_(row), reference_(scale != 0 ? row.largest : 0), scale_(scale) {}

  // Known before: the logits that are at least `low` reach the goal, and their measure is at most
  // `above_low`. Each pass over the row measures at eight thresholds and keeps the gap that holds the cut.
  Cut find(double goal, float low, double above_low) const {
    float high = next_above(row_.largest);
    double above_high = 0;
    for (;;) {
      const double least = weight(low);
      if (next_above(low) >= high) return ties(low, std::ceil((goal - above_high) / least));
      if (above_low - above_high <= kFew * least) return among(low, high, goal - above_high);
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

 private:
  using Thresholds = std::array<float, kThresholds>;
  using Measures = std::array<double, kThresholds>;

  // Measured in fixed ranges, added in their order: the same for any number of threads.
  Measures above(const Thresholds& thresholds) const {
    std::vector<Measures> parts(row_.n_blocks / Row::kRange + 1, Measures{});
    row_.for_blocks([&](int first, int last) {
      Measures& part = parts[first / Row::kRange];
      float sums[kThresholds];
      for (int b = first; b < last; ++b) {
        if (row_.maxima[b] < thresholds[0]) continue;
        row_.simd.sums_at_least(row_.block(b), reference_, scale_, thresholds.data(), sums);
        for (int i = 0; i < kThresholds; ++i) part[i] += sums[i];
      }
    });
    Measures result{};
    for (const Measures& part : parts) {
      for (size_t i = 0; i < result.size(); ++i) result[i] += part[i];
    }
    return result;
  }

  double weight(float logit) const {
    return weights_of(row_.simd, {logit}, reference_, scale_)[0];
  }

  // Seven thresholds that part a sample of the logits in between evenly (the values, if it is too
  // small); one that halves the floats in between, which bounds the number of passes.
  Thresholds split(float low, float high) const {
    std::vector<float> sample;
    const int stride = row_.size / 256 | 1;
    for (int id = 0; id < row_.size; id += stride) {
      const float x = row_.logit(id);
      if (low < x && x < high) sample.push_back(x);
    }
    std::sort(sample.begin(), sample.end());
    const double width = static_cast<double>(high) - low;
    Thresholds result;
    for (int i = 0; i < 7; ++i) {
      result[i] = sample.size() < 7 ? static_cast<float>(low + width * (i + 1) / 8)
                                    : sample[sample.size() * (i + 1) / 8];
    }
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
    const auto size = static_cast<uint32_t>(n < 0 ? -n : n);
    const uint32_t word = n < 0 ? size | 0x80000000u : size;
    float x;
    std::memcpy(&x, &word, sizeof x);
    return x;
  }

  // Few logits are left: halve them by value, going on with the half in which the goal is reached.
  Cut among(float low, float high, double goal) const {
    std::vector<float> logits;
    row_.for_between(low, high, [&](int id) { logits.push_back(row_.logit(id)); });
    if (logits.empty()) return {high, row_.size};  // what is missing is rounding
    const std::vector<float> weights = weights_of(row_.simd, logits, reference_, scale_);
    struct Item {
      float logit, weight;
    };
    std::vector<Item> items;
    for (size_t i = 0; i < logits.size(); ++i) items.push_back({logits[i], weights[i]});
    double rest = goal;
    auto begin = items.begin(), end = items.end();
    while (end - begin > 1) {
      const auto middle = begin + (end - begin) / 2;
      std::nth_element(begin, middle, end,
                       [](const Item& a, const Item& b) { return a.logit > b.logit; });
      double half = 0;
      for (auto i = begin; i != middle; ++i) half += i->weight;
      if (half >= rest) {
        end = middle;
      } else {
        rest -= half;
        begin = middle;
      }
    }
    const Item last = *begin;
    double above_last = 0;
    for (const Item& item : items) above_last += item.logit > last.logit ? item.weight : 0;
    return ties(last.logit, std::ceil((goal - above_last) / last.weight));
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

  static constexpr int kFew = 4096;
  const Row& row_;
  const float reference_, scale_;
};

}  // namespace tinker
