// softmax(row / temperature) cut to top_k, to top_p, then to min_p: built once, drawn from many times.
#pragma once

#include "cut.hpp"

namespace tinker {

struct Settings {
  float temperature = 1;
  int top_k = -1;   // -1: off
  float top_p = 1;  // 1: off
  float min_p = 0;  // 0: off

  bool operator==(const Settings& o) const {
    return temperature == o.temperature && top_k == o.top_k && top_p == o.top_p && min_p == o.min_p;
  }

  // The least logit whose probability is min_p times that of the largest.
  float floor(float largest) const {
    if (min_p == 0) return -kInfinity;
    const double exact = largest + temperature * std::log(static_cast<double>(min_p));
    constexpr float lowest = std::numeric_limits<float>::lowest();
    if (exact <= lowest) return lowest;
    const float rounded = static_cast<float>(exact);
    return rounded < exact ? next_above(rounded) : rounded;
  }

  // Kept finite and normal, so that 0 * scale is 0 and -inf * scale is -inf.
  float scale() const {
    const double scale = 1.4426950408889634 / temperature;
    return static_cast<float>(std::clamp<double>(scale, std::numeric_limits<float>::min(),
                                                 std::numeric_limits<float>::max()));
  }
};

class Distribution {
 public:
  // The scale that `Row::scan` must be given before, or 0: cut to a short list, or at temperature
  // 0 or 1, the row needs no sums of its own.
  static float scale_for_scan(const Settings& s, int size) {
    return s.temperature == 0 || s.temperature == 1 || is_short(s.top_k, size) ? 0 : s.scale();
  }

  Distribution(const Row& row, const Settings& settings)
      : row_(row), scale_(settings.temperature == 0 ? 0 : settings.scale()),
        temperature_(settings.temperature), floor_(settings.floor(row.largest)) {
    if (temperature_ == 0) {
      list_ = {row.top(1)};
      return;
    }
    if (is_short(settings.top_k, row.size)) {
      list_ = row.top(settings.top_k);
      const std::vector<double> reached = cumulated(list_);
      keep(list_, reached, settings.top_p < 1 ? settings.top_p * reached.back() : kInfinity);
      return;
    }
    std::vector<double> masses;
    if (settings.top_k > 0 && settings.top_k < row.size) {
      masses = cut_to(top_k_cut(settings.top_k));
    } else {
      masses = row.masses(scale_, temperature_ != 1);
    }
    if (settings.top_p < 1) {
      const double total = Row::total_of(masses);
      const double goal = settings.top_p * total;
      // Most often the nucleus is small. If not, its cut is searched.
      const std::vector<Candidate> best = row.top(128);
      const std::vector<double> reached = cumulated(best);
      if (reached.back() >= goal) {
        keep(best, reached, goal);
        return;
      }
      masses = cut_to(top_p_cut(settings.top_p, total));
    }
    if (floor_ > cut_.threshold) masses = cut_to({floor_});
    sums_.resize(masses.size());
    double sum = 0;
    for (size_t b = 0; b < masses.size(); ++b) sums_[b] = sum += masses[b];
    total_ = sum;
  }

  // The inverse of the cumulative distribution in id order, at u in [0, 1).
  int draw(double u) const {
    if (temperature_ == 0) return list_[0].id;
    const double target = u * total_;
    size_t i = std::upper_bound(sums_.begin(), sums_.end(), target) - sums_.begin();
    // Rounding can carry the target to the end: then the last that has any mass.
    while (i == sums_.size() || sums_[i] == (i ? sums_[i - 1] : 0)) --i;
    return list_.empty() ? draw_in_block(i, target) : list_[i].id;
  }

  // Of an id that can be drawn. At temperature 0: under softmax(row).
  double logprob(int id) const {
    if (temperature_ == 0) return row_.logprob(id);
    return (static_cast<double>(row_.logit(id)) - row_.largest) / temperature_ - std::log(total_);
  }

 private:
  // Up to this length the kept tokens are a sorted list; beyond it they are found by threshold.
  static constexpr int kShort = 1024;
  static bool is_short(int top_k, int size) {
    return top_k > 0 && top_k < size && top_k <= kShort;
  }

  std::vector<double> cumulated(const std::vector<Candidate>& list) const {
    std::vector<float> logits;
    for (const Candidate& c : list) logits.push_back(c.logit);
    const std::vector<float> weights = weights_of(row_.simd, logits, row_.largest, scale_);
    std::vector<double> sums(list.size());
    double sum = 0;
    for (size_t i = 0; i < list.size(); ++i) sums[i] = sum += weights[i];
    return sums;
  }

  // The first of `best` that reach the goal, or all of them, become the list, by rising id; without
  // what is below the floor.
  void keep(std::vector<Candidate> best, const std::vector<double>& reached, double goal) {
    const size_t n = std::lower_bound(reached.begin(), reached.end(), goal) - reached.begin() + 1;
    best.resize(std::min(n, best.size()));
    while (best.back().logit < floor_) best.pop_back();
    std::sort(best.begin(), best.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    list_ = std::move(best);
    sums_ = cumulated(list_);
    total_ = sums_.back();
  }

  Cut top_k_cut(int k) const {
    return CutSearch(row_, 0).find(k, std::numeric_limits<float>::lowest(), row_.size);
  }

  // A token outside the nucleus although its weight exceeds (1 - top_p) * total / size would
  // leave more than 1 - top_p outside: the search begins there.
  Cut top_p_cut(float top_p, double total) const {
    const double least = std::log2((1.0 - top_p) * total / row_.size) - 1e-3;
    constexpr float lowest = std::numeric_limits<float>::lowest();
    const double bound = std::max<double>(row_.largest + least / scale_, lowest);
    const float low = std::max(static_cast<float>(bound), cut_.threshold);
    Cut cut = CutSearch(row_, scale_).find(top_p * total, low, total);
    if (cut.threshold == cut_.threshold) cut.tie_end = std::min(cut.tie_end, cut_.tie_end);
    return cut;
  }

  std::vector<double> cut_to(const Cut& cut) {
    cut_ = cut;
    std::vector<double> masses(row_.n_blocks);
    row_.for_blocks([&](int first, int last) {
      float weights[kBlock];
      for (int b = first; b < last; ++b) masses[b] = kept_weights(b, weights);
    });
    return masses;
  }

  // All weights of a block, and the sum of the kept ones.
  double kept_weights(int b, float* weights) const {
    if (row_.maxima[b] < cut_.threshold) return 0;
    const float* x = row_.block(b);
    row_.simd.weigh(x, 1, row_.largest, scale_, weights);
    const int first = b * kBlock;
    if (cut_.tie_end <= first) {
      return row_.simd.sum_at_least(x, weights, next_above(cut_.threshold));
    }
    for (int i = cut_.tie_end - first; i < kBlock; ++i) {  // the block in which the ties end
      if (x[i] == cut_.threshold) weights[i] = 0;
    }
    return row_.simd.sum_at_least(x, weights, cut_.threshold);
  }

  int draw_in_block(size_t i, double target) const {
    const int b = static_cast<int>(i);
    float weights[kBlock];
    kept_weights(b, weights);
    const float* x = row_.block(b);
    double sum = i ? sums_[i - 1] : 0;
    int last = 0;
    for (int j = 0; j < kBlock; ++j) {
      if (!cut_.keeps(x[j], b * kBlock + j) || weights[j] == 0) continue;
      last = j;
      if ((sum += weights[j]) > target) break;
    }
    return b * kBlock + last;
  }

  const Row& row_;
  const float scale_;
  const double temperature_;
  const float floor_;            // by min_p
  std::vector<Candidate> list_;  // the kept tokens by rising id, if they are few
  std::vector<double> sums_;     // weights cumulated over the list, or over the blocks
  double total_ = 0;
  Cut cut_;
};

}  // namespace tinker
