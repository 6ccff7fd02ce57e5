// Activations over `Lanes` (see block_kernels.hpp, which has exp2).

// Within 2e-7 of float64, relative where |x| > 1. With a = -|x| and e = 2^p(a), which is at most 1,
// x / (1 + 2^-p(x)) is max(x, 0) + a e / (1 + e) on both sides of 0, and nothing overflows. Beyond -64
// e is 0, so infinity gives what its limit is. NaN stays NaN, as in exp2.
inline Lanes gelu(Lanes x, tinker::Gelu form) {
  const Lanes a = max(all(-64.0f), all(0.0f) - max(all(0.0f) - x, x));
  const Lanes e = exp2(a * fma(all(form.cubic) * a, a, all(form.linear)));
  return max(all(0.0f), x) + a * e / (all(1.0f) + e);
}

// y = gelu(x), times the gates where there are some. y may be x or the gates.
void activate(const float* x, const float* gates, int64_t n, tinker::Gelu form, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Lanes activated = gelu(load(x + i), form);
    store(y + i, gates ? activated * load(gates + i) : activated);
  }
  if (i == n) return;
  float rest[3][kLanes] = {};
  for (int64_t j = i; j < n; ++j) {
    rest[0][j - i] = x[j];
    rest[1][j - i] = gates ? gates[j] : 1.0f;
  }
  store(rest[2], gelu(load(rest[0]), form) * load(rest[1]));
  for (int64_t j = i; j < n; ++j) y[j] = rest[2][j - i];
}
