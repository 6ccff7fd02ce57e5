// GELU in the two forms that avoid the error function: x times the logistic function of a polynomial of x.
// Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016).
#pragma once

#include <cstdint>

namespace tinker {

// x / (1 + 2^-p(x)), where p(x) = linear x + cubic x^3.
struct Gelu {
  float linear, cubic;
};

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which is x / (1 + exp(-2 sqrt(2 / pi) (..))).
constexpr double kTwiceRootLog2E = 2.302208198144325;  // 2 sqrt(2 / pi) log2(e)
constexpr Gelu kGeluTanh = {static_cast<float>(kTwiceRootLog2E),
                            static_cast<float>(0.044715 * kTwiceRootLog2E)};

// x / (1 + exp(-1.702 x))
constexpr Gelu kGeluQuick = {static_cast<float>(1.702 * 1.4426950408889634), 0.0f};

}  // namespace tinker
