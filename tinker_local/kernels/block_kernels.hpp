// The block kernels over `Lanes` (see exponential_kernels.hpp), for which the including file also defines at_least
// (which makes a Mask), add_where, bits, and over the lanes sum and maximum. Included inside an unnamed namespace, so
// that no two instruction sets share a symbol.

#include "exponential_kernels.hpp"

constexpr int kGroup = 2;                   // blocks whose maxima are taken before their sums
constexpr int kAhead = 3 * tinker::kBlock;  // how far ahead of a sum logits are fetched: measured

// A hint; the address need not be valid.
inline void prefetch(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

inline float block_maximum(const float* x) {
  Lanes a = load(x), b = load(x + kLanes), c = load(x + 2 * kLanes), d = load(x + 3 * kLanes);
  for (int i = 4 * kLanes; i < tinker::kBlock; i += 4 * kLanes) {
    a = max(load(x + i), a);
    b = max(load(x + i + kLanes), b);
    c = max(load(x + i + 2 * kLanes), c);
    d = max(load(x + i + 3 * kLanes), d);
  }
  return maximum(max(max(a, b), max(c, d)));
}

inline float block_sum(const float* x, float reference, float scale) {
  const Lanes r = all(reference), s = all(scale);
  Lanes even = all(0.0f), odd = all(0.0f);
  for (int i = 0; i < tinker::kBlock; i += 2 * kLanes) {
    prefetch(x + kAhead + i);
    prefetch(x + kAhead + i + kLanes);
    even = even + weight(x + i, r, s);
    odd = odd + weight(x + i + kLanes, r, s);
  }
  return sum(even + odd);
}

// The maxima of a few blocks, then their sums from the nearest cache: each maximum is known before
// its sum begins, and the next blocks are fetched meanwhile.
void scan(const float* x, int n_blocks, float scale, float* maxima, float* sums,
          float other_scale, float* other_sums) {
  for (int first = 0; first < n_blocks; first += kGroup) {
    const int last = first + kGroup < n_blocks ? first + kGroup : n_blocks;
    for (int b = first; b < last; ++b) maxima[b] = block_maximum(x + b * tinker::kBlock);
    for (int b = first; b < last; ++b) {
      const float* block = x + b * tinker::kBlock;
      const float reference = maxima[b] == kNegativeInfinity ? 0.0f : maxima[b];
      sums[b] = block_sum(block, reference, scale);
      if (other_sums) other_sums[b] = block_sum(block, reference, other_scale);
    }
  }
}

void weigh(const float* x, int n_blocks, float reference, float scale, float* weights) {
  const Lanes r = all(reference), s = all(scale);
  for (int i = 0; i < n_blocks * tinker::kBlock; i += kLanes) {
    store(weights + i, weight(x + i, r, s));
  }
}

void sums_at_least(const float* x, float reference, float scale, const float* thresholds,
                   float* sums) {
  float weights[tinker::kBlock];
  weigh(x, 1, reference, scale, weights);
  for (int j = 0; j < tinker::kThresholds; j += 4) {
    const Lanes t0 = all(thresholds[j]), t1 = all(thresholds[j + 1]);
    const Lanes t2 = all(thresholds[j + 2]), t3 = all(thresholds[j + 3]);
    Lanes s0 = all(0.0f), s1 = s0, s2 = s0, s3 = s0;
    for (int i = 0; i < tinker::kBlock; i += kLanes) {
      const Lanes v = load(x + i), w = load(weights + i);
      s0 = add_where(at_least(v, t0), s0, w);
      s1 = add_where(at_least(v, t1), s1, w);
      s2 = add_where(at_least(v, t2), s2, w);
      s3 = add_where(at_least(v, t3), s3, w);
    }
    sums[j] = sum(s0);
    sums[j + 1] = sum(s1);
    sums[j + 2] = sum(s2);
    sums[j + 3] = sum(s3);
  }
}

float sum_at_least(const float* x, const float* weights, float threshold) {
  const Lanes t = all(threshold);
  Lanes even = all(0.0f), odd = all(0.0f);
  for (int i = 0; i < tinker::kBlock; i += 2 * kLanes) {
    even = add_where(at_least(load(x + i), t), even, load(weights + i));
    const int j = i + kLanes;
    odd = add_where(at_least(load(x + j), t), odd, load(weights + j));
  }
  return sum(even + odd);
}

int find(const float* x, float low, float high, int* positions) {
  const Lanes lo = all(low), hi = all(high);
  int n = 0;
  for (int i = 0; i < tinker::kBlock; i += kLanes) {
    const Lanes v = load(x + i);
    unsigned found = bits(at_least(v, lo)) & ~bits(at_least(v, hi));
    for (; found; found &= found - 1) positions[n++] = i + tinker::lowest_bit(found);
  }
  return n;
}

float maximum_of(const float* x, int n_blocks) {
  float result = kNegativeInfinity;
  for (int b = 0; b < n_blocks; ++b, x += tinker::kBlock) {
    const float largest = block_maximum(x);
    result = largest > result ? largest : result;
  }
  return result;
}

#include "weight_kernels.hpp"

#include "product_kernels.hpp"

#include "packed_product_kernels.hpp"

#include "attention_sums.hpp"

#include "attention_kernels.hpp"

#include "activation_kernels.hpp"

constexpr tinker::SimdPath kernels(const char* name) {
  return {name, scan, weigh, sum_at_least, sums_at_least,
          find, maximum_of, attend, attention_scratch, attend_part, join_parts, part_size,
          multiply_rows, pack_groups, group_product, pack_super_blocks, super_block_product, activate};
}
