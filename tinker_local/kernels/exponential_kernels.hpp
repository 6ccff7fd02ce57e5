// Exponentials over `Lanes`, sixteen floats that the including file defines, together with what is done to them: load,
// store, all, + - * /, fma, max, exponent. Included inside an unnamed namespace.

constexpr int kLanes = 16;
constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// 2^t for t <= 0, within 1.6e-7; 0 where t <= -126.5. t = n + f with |f| <= 1/2: adding `shifter`
// rounds t to n and leaves n + 127 in the low bits, from where a shift makes it the exponent of
// 2^n. The polynomial is the minimax one for 2^f with constant 1, so that 2^0 is exactly 1. NaN
// stays NaN, for max(a, b) is b where either is.
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
