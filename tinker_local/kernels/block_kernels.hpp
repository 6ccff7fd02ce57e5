// The block kernels over `Lanes`, sixteen floats that the including file defines for its
// instruction set, together with load, store, all, max, fma, exponent, at_least, mask, sum.
// Included inside an unnamed namespace, so that no two instruction sets share a symbol.

constexpr int kLanes = 16;
constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// 2^t for t <= 0, within 1.6e-7; 0 below 2^-126.5. t = n + f with |f| <= 1/2: adding `shifter` rounds t to n
// and leaves n + 127 in the low bits, from where a shift makes it the exponent of 2^n. The
// polynomial is the minimax one for 2^f with constant 1, so that 2^0 is exactly 1.
inline Lanes exp2(Lanes t) {
  const Lanes shifter = all(0x1.8p23f + 127.0f);
  t = max(all(-127.0f), t);
  const Lanes shifted = t + shifter;
  const Lanes f = t - (shifted - shifter);
  Lanes p = all(0x1.5bfc8ep-10f);
  p = fma(p, f, all(0x1.3cee4cp-7f));
  p = fma(p, f, all(0x1.c6b62ap-5f));
  p = fma(p, f, all(0x1.ebf9b2p-3f));
  p = fma(p, f, all(0x1.62e42cp-1f));
  p = fma(p, f, all(1.0f));
  return p * exponent(shifted);
}

inline Lanes weight(const float* x, Lanes reference, Lanes scale) {
  return exp2((load(x) - reference) * scale);
}

inline float block_maximum(const float* x) {
  Lanes even = load(x), odd = load(x + kLanes);
  for (int i = 2 * kLanes; i < tinker::kBlock; i += 2 * kLanes) {
    even = max(load(x + i), even);
    odd = max(load(x + i + kLanes), odd);
  }
  return maximum(max(even, odd));
}

inline float block_sum(const float* x, float reference, float scale) {
  const Lanes r = all(reference), s = all(scale);
  Lanes even = weight(x, r, s), odd = weight(x + kLanes, r, s);
  for (int i = 2 * kLanes; i < tinker::kBlock; i += 2 * kLanes) {
    even = even + weight(x + i, r, s);
    odd = odd + weight(x + i + kLanes, r, s);
  }
  return sum(even + odd);
}

void scan(const float* x, int n_blocks, float scale, float* maxima, float* sums,
          float other_scale, float* other_sums) {
  for (int b = 0; b < n_blocks; ++b, x += tinker::kBlock) {
    maxima[b] = block_maximum(x);
    const float reference = maxima[b] == kNegativeInfinity ? 0.0f : maxima[b];
    sums[b] = block_sum(x, reference, scale);
    if (other_sums) other_sums[b] = block_sum(x, reference, other_scale);
  }
}

void weigh(const float* x, int n_blocks, float reference, float scale, float* weights) {
  const Lanes r = all(reference), s = all(scale);
  for (int i = 0; i < n_blocks * tinker::kBlock; i += kLanes) store(weights + i, weight(x + i, r, s));
}

float sum_at_least(const float* x, const float* weights, float threshold) {
  const Lanes t = all(threshold);
  Lanes even = all(0.0f), odd = all(0.0f);
  for (int i = 0; i < tinker::kBlock; i += 2 * kLanes) {
    even = even + mask(load(weights + i), at_least(load(x + i), t));
    odd = odd + mask(load(weights + i + kLanes), at_least(load(x + i + kLanes), t));
  }
  return sum(even + odd);
}

int find(const float* x, float low, float high, int* positions) {
  const Lanes lo = all(low), hi = all(high);
  int n = 0;
  for (int i = 0; i < tinker::kBlock; i += kLanes) {
    const Lanes v = load(x + i);
    unsigned found = bits(at_least(v, lo)) & ~bits(at_least(v, hi));
    for (; found; found &= found - 1) positions[n++] = i + lowest_bit(found);
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

constexpr tinker::Blocks kernels(const char* name) {
  return {name, scan, weigh, sum_at_least, find, maximum_of};
}
