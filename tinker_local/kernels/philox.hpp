// Philox4x64-10, the counter-based generator of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace tinker {

using PhiloxBlock = std::array<uint64_t, 4>;

// The high word of a 64 x 64 bit product, from 32-bit halves: the same on every compiler.
inline uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + ((a0 * b0) >> 32);
  return a1 * b1 + (middle >> 32) + ((a0 * b1 + (middle & 0xFFFFFFFFu)) >> 32);
}

inline PhiloxBlock philox(PhiloxBlock x, uint64_t key0, uint64_t key1) {
  constexpr uint64_t m0 = 0xD2E7470EE14C6C93u, m1 = 0xCA5A826395121157u;
  for (int round = 0; round < 10; ++round) {
    x = {multiply_high(x[2], m1) ^ x[1] ^ key0, x[2] * m1,
         multiply_high(x[0], m0) ^ x[3] ^ key1, x[0] * m0};
    key0 += 0x9E3779B97F4A7C15u;
    key1 += 0xBB67AE8584CAA73Bu;
  }
  return x;
}

// The number in [0, 1) at `position` of the stream (seed, sample): the first word's top 53 bits.
inline double uniform(uint64_t seed, uint64_t sample, uint64_t position) {
  return static_cast<double>(philox({position, 0, 0, 0}, seed, sample)[0] >> 11) * 0x1p-53;
}

}  // namespace tinker
