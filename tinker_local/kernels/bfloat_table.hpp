// Small integers as numbers of bfloat16.
#pragma once

#include <cstdint>

namespace tinker {

// The number of bfloat16 that is an integer of at most eight bits.
constexpr uint16_t bfloat_of(int integer) {
  if (!integer) return 0;
  const int magnitude = integer < 0 ? -integer : integer;
  int log2 = 0;
  while (magnitude >> (log2 + 1)) ++log2;
  const int fraction = (magnitude << 7 >> log2) & 0x7f;
  return static_cast<uint16_t>((integer < 0 ? 0x8000 : 0) | (127 + log2) << 7 | fraction);
}

// What integers of five bits mean; those of four bits mean the same with any fifth bit.
struct BfloatTable {
  uint16_t of[32] = {};

  static constexpr BfloatTable from(int first, int n_bits) {
    BfloatTable table;
    for (int i = 0; i < 32; ++i) table.of[i] = bfloat_of(first + i % (1 << n_bits));
    return table;
  }
  static constexpr BfloatTable with(const int8_t (&values)[16]) {
    BfloatTable table;
    for (int i = 0; i < 32; ++i) table.of[i] = bfloat_of(values[i % 16]);
    return table;
  }
};

}  // namespace tinker
