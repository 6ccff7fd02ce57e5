// How weights are read, for each type of GGUF file that has a kernel here. Formats are ggml's (ggml-common.h,
// `dequantize_row_*`).
//
// Over `Lanes`, load_half, load_bfloat, from_half, `Bytes`, sixteen of them, and `Shorts`, sixteen integers of
// sixteen bits, which the including file defines.

// --- plain numbers: sixteen at a time, in float32. A block has one group of sixteen. ---

struct F32 {
  static constexpr int kType = 0, kSize = 16, kBytes = 64;
  static Lanes lanes(const uint8_t* p, int) { return load(reinterpret_cast<const float*>(p)); }
};

struct F16 {
  static constexpr int kType = 1, kSize = 16, kBytes = 32;
  static Lanes lanes(const uint8_t* p, int) { return load_half(reinterpret_cast<const uint16_t*>(p)); }
};

struct BF16 {
  static constexpr int kType = 30, kSize = 16, kBytes = 32;
  static Lanes lanes(const uint8_t* p, int) { return load_bfloat(reinterpret_cast<const uint16_t*>(p)); }
};

// --- groups of 32 weights that share a scale ---
//
// A stretch is 256 weights of a row, or what is left of it: one block, or several of 32. `numbers` gives the
// integers of a group. A weight is its integer, less kZero, times the scale of its group; where kHasOffset, plus
// the group's offset. `read_scales` gives both for a stretch. Scales are products of at most two numbers, rounded once.

constexpr int kMostRuns = tinker::kStretch / tinker::kRun;

template <class Type>
constexpr int kBytesOfStretch = tinker::kStretch / Type::kSize * Type::kBytes;

// Numbers of a row from k on, a multiple of 256.
template <class Type>
inline const uint8_t* stretch_of(const char* row, int64_t k) {
  return reinterpret_cast<const uint8_t*>(row) + k / Type::kSize * Type::kBytes;
}

struct Scales {
  float scales[kMostRuns], offsets[kMostRuns];
};

inline float half_at(const uint8_t* p) {
  uint16_t half;
  memcpy(&half, p, sizeof half);
  return from_half(half);
}

struct Numbers {
  Shorts first, last;
};

inline Bytes low_nibbles(Bytes a) { return a & bytes(15); }
inline Bytes high_nibbles(Bytes a) { return shift_right<4>(a); }
inline Numbers nibbles(Bytes a) { return {widen(low_nibbles(a)), widen(high_nibbles(a))}; }

// The fifth bits of sixteen numbers, each a bit of two bytes.
inline Bytes fifth_bits(const uint8_t* p) { return spread_bits(p) & bytes(16); }

inline Numbers nibbles_with_fifth_bits(const uint8_t* fifth, Bytes a) {
  return {widen(low_nibbles(a) | fifth_bits(fifth)), widen(high_nibbles(a) | fifth_bits(fifth + 2))};
}

// Blocks of 32 with a scale that is float16, and perhaps an offset behind it.
template <int bytes_of_block, int zero, bool has_offset>
struct Simple {
  static constexpr int kBytes = bytes_of_block, kSize = 32, kZero = zero;
  static constexpr bool kHasOffset = has_offset;
  using Row = tinker::PackedRow;
  static void read_scales(const uint8_t* stretch, int n_runs, Scales& to) {
    for (int i = 0; i < n_runs; ++i) to.scales[i] = half_at(stretch + i * kBytes);
    for (int i = 0; has_offset && i < n_runs; ++i) to.offsets[i] = half_at(stretch + i * kBytes + 2);
  }
};

struct Q4_0 : Simple<18, 8, false> {
  static constexpr int kType = 2;
  static Numbers numbers(const uint8_t* stretch, int run) {
    return nibbles(load_bytes(stretch + run * kBytes + 2));
  }
};

struct Q4_1 : Simple<20, 0, true> {
  static constexpr int kType = 3;
  static Numbers numbers(const uint8_t* stretch, int run) {
    return nibbles(load_bytes(stretch + run * kBytes + 4));
  }
};

struct Q5_0 : Simple<22, 16, false> {
  static constexpr int kType = 6;
  static Numbers numbers(const uint8_t* stretch, int run) {
    const uint8_t* block = stretch + run * kBytes;
    return nibbles_with_fifth_bits(block + 2, load_bytes(block + 6));
  }
};

struct Q5_1 : Simple<24, 0, true> {
  static constexpr int kType = 7;
  static Numbers numbers(const uint8_t* stretch, int run) {
    const uint8_t* block = stretch + run * kBytes;
    return nibbles_with_fifth_bits(block + 4, load_bytes(block + 8));
  }
};

struct Q8_0 : Simple<34, 0, false> {
  static constexpr int kType = 8;
  static Numbers numbers(const uint8_t* stretch, int run) {
    const uint8_t* block = stretch + run * kBytes;
    return {widen_signed(load_bytes(block + 2)), widen_signed(load_bytes(block + 18))};
  }
  static Lanes lanes(const uint8_t* block, int group) {  // of keys and values
    return from_signed(load_bytes(block + 2 + 16 * group)) * all(half_at(block));
  }
};

// Nibbles are places in a table.
inline Numbers looked_up(const int8_t* table, const uint8_t* packed) {
  const Bytes q = load_bytes(packed), numbers = load_bytes(table);
  return {widen_signed(look_up(numbers, low_nibbles(q))), widen_signed(look_up(numbers, high_nibbles(q)))};
}

constexpr int8_t kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct IQ4_NL : Simple<18, 0, false> {
  static constexpr int kType = 20;
  static Numbers numbers(const uint8_t* stretch, int run) {
    return looked_up(kNonLinear, stretch + run * kBytes + 2);
  }
};

// 2^(e - 128) for each byte e.
struct PowersOfTwo {
  float of[256] = {0x1p-128f};
  constexpr PowersOfTwo() {
    for (int e = 1; e < 256; ++e) of[e] = 2 * of[e - 1];
  }
};
constexpr PowersOfTwo kPowersOfTwo;

// OCP Microscaling Formats 1.0: a power of two, here half of it, and 4-bit floats, here doubled.
struct MXFP4 : Simple<17, 0, false> {
  static constexpr int kType = 39;
  static constexpr int8_t kDoubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  static Numbers numbers(const uint8_t* stretch, int run) {
    return looked_up(kDoubled, stretch + run * kBytes + 1);
  }
  static void read_scales(const uint8_t* stretch, int n_runs, Scales& to) {
    for (int i = 0; i < n_runs; ++i) to.scales[i] = kPowersOfTwo.of[stretch[i * kBytes]];
  }
};

// Scales have four bits each in four bytes, and two more in two bytes, all lowest first.
struct IQ4_XS {
  static constexpr int kType = 23, kBytes = 136, kSize = 256, kZero = 0;
  static constexpr bool kHasOffset = false;
  using Row = tinker::PackedRow;
  static Numbers numbers(const uint8_t* block, int run) { return looked_up(kNonLinear, block + 8 + 16 * run); }
  static void read_scales(const uint8_t* block, int, Scales& to) {
    uint16_t twos;
    uint32_t fours;
    memcpy(&twos, block + 2, sizeof twos);
    memcpy(&fours, block + 4, sizeof fours);
    const uint64_t six_bits[2] = {spread(fours, 16, 0x0f0f0f0f0f0f0f0f) | spread(twos, 24, 0x0303030303030303) << 4, 0};
    store(to.scales, (from_bytes(load_bytes(six_bits)) - all(32.0f)) * all(half_at(block)));
  }

 private:
  // Eight small numbers, packed, to a byte each: halves are moved apart by `by`, then halves of halves.
  static uint64_t spread(uint64_t packed, int by, uint64_t mask) {
    packed = (packed | packed << by) & (by == 16 ? 0x0000ffff0000ffff : 0x000000ff000000ff);
    packed = (packed | packed << by / 2) & (by == 16 ? 0x00ff00ff00ff00ff : 0x000f000f000f000f);
    return (packed | packed << by / 4) & mask;
  }
};

// --- super-blocks: 256 weights of at most six bits ---
//
// A weight is its integer, less kZero, times the integer scale of its sixteen, times the block's scale; where
// kHasOffset, plus the integer offset of its sixteen times the block's offset. No integer is above kMost.
//
// Integers are packed in kLines of 32 bytes, from kFirstLine on. `numbers` gives those of run `phase` of part i. The
// kPhases runs of a part are packed alike: a byte of its lines has bits of one integer of each run. So bytes of a line
// may be one column's, or several columns'.

// Scales of the first sixteen of each run of 32, then of the last sixteen; offsets likewise.
struct SuperScales {
  Shorts scales, offsets;
  float scale, offset;
};

template <int bytes_of_block, int first_line, int lines, int group, int phases, int most, int zero, bool has_offset>
struct SuperBlock {
  static constexpr int kBytes = bytes_of_block, kFirstLine = first_line, kLines = lines, kSize = 256, kGroup = group;
  static constexpr int kPhases = phases, kMost = most, kZero = zero;
  static constexpr bool kHasOffset = has_offset;
  using Row = tinker::SuperRow;
};

// Run number `run` of the lines that line(number) gives; and of a block.
template <class Type, class Line>
inline Octets run_of_lines(Line line, int run) {
  return Type::numbers(line, run / Type::kPhases, run % Type::kPhases);
}
template <class Type>
inline Octets run_of_block(const uint8_t* block, int run) {
  const auto line = [block](int number) { return load_octets(block + Type::kFirstLine + 32 * number); };
  return run_of_lines<Type>(line, run);
}

// Bytes of neighbouring sixteens: those of the first ones, then those of the last ones.
inline Bytes first_then_last(Bytes a) {
  static constexpr uint8_t places[16] = {0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15};
  return look_up(a, load_bytes(places));
}

inline Octets low_nibbles(Octets a) { return a & octets(15); }
inline Octets high_nibbles(Octets a) { return shift_right<4>(a); }

// Pair `place` of each byte's bits, from the lowest on.
inline Octets two_bits(Octets a, int place) {
  const Octets lower = place < 2 ? a : shift_right<4>(a);
  return (place % 2 ? shift_right<2>(lower) : lower) & octets(3);
}

// `value` in each byte that has the bit `place`.
inline Octets where_bit(Octets a, int place, int value) {
  const Octets bit = octets(1 << place);
  return equal(a & bit, bit) & octets(value);
}

// In halves of 128: two bits in 32 bytes, of which the lowest come first. Each sixteen numbers have a scale and an
// offset of four bits.
struct Q2_K : SuperBlock<84, 16, 2, 16, 4, 3, 0, true> {
  static constexpr int kType = 10;
  static SuperScales read_scales(const uint8_t* block) {
    const Bytes both = first_then_last(load_bytes(block));
    return {widen(low_nibbles(both)), widen(high_nibbles(both)), half_at(block + 80), -half_at(block + 82)};
  }
  template <class Line>
  static Octets numbers(Line line, int half, int phase) {
    return two_bits(line(half), phase);
  }
};

// The same with a third bit: that of eighth i is bit i of 32 bytes. Scales have six bits: lower ones in eight bytes,
// the lower nibbles first, and upper ones in four.
struct Q3_K : SuperBlock<110, 0, 3, 16, 4, 7, 4, false> {
  static constexpr int kType = 11;
  static SuperScales read_scales(const uint8_t* block) {
    uint32_t packed[3];
    memcpy(packed, block + 96, sizeof packed);
    const uint32_t low = 0x0f0f0f0f, two = 0x30303030, upper = packed[2];
    const uint32_t words[4] = {(packed[0] & low) | (upper << 4 & two), (packed[1] & low) | (upper << 2 & two),
                               (packed[0] >> 4 & low) | (upper & two), (packed[1] >> 4 & low) | (upper >> 2 & two)};
    const Shorts scales = widen(first_then_last(load_bytes(words))) + shorts(-32);
    return {scales, scales, half_at(block + 108), 0};
  }
  template <class Line>
  static Octets numbers(Line line, int half, int phase) {
    return two_bits(line(1 + half), phase) | where_bit(line(0), 4 * half + phase, 4);
  }
};

// A scale and an offset of six bits for each eighth of a block, all in twelve bytes: four times the lower bits of
// scales 0 to 3, of offsets 0 to 3, and of both 4 to 7; the first two have the upper bits of 4 to 7 on top.
template <int bytes_of_block, int lines, int most>
struct Eighths : SuperBlock<bytes_of_block, 16, lines, 32, 2, most, 0, true> {
  static SuperScales read_scales(const uint8_t* block) {
    // Of the scales, then of the offsets, 0 to 3 and 4 to 7: where their lower bits are, and their upper ones.
    static constexpr uint8_t lower[16] = {4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15};
    static constexpr uint8_t upper[16] = {0, 0, 0, 0, 4, 5, 6, 7, 0, 0, 0, 0, 8, 9, 10, 11};
    static constexpr uint8_t low_bits[16] = {63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63};
    static constexpr uint8_t high_bits[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 15, 15, 15};
    static constexpr uint8_t upper_bits[16] = {0, 0, 0, 0, 48, 48, 48, 48, 0, 0, 0, 0, 48, 48, 48, 48};
    static constexpr uint8_t scales[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
    static constexpr uint8_t offsets[16] = {8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15};
    const Bytes packed = load_bytes(block), found = look_up(packed, load_bytes(lower));
    const Bytes six_bits = (found & load_bytes(low_bits)) | (shift_right<4>(found) & load_bytes(high_bits)) |
                           (shift_right<2>(look_up(packed, load_bytes(upper))) & load_bytes(upper_bits));
    return {widen(look_up(six_bits, load_bytes(scales))), widen(look_up(six_bits, load_bytes(offsets))),
            half_at(block), -half_at(block + 2)};
  }
};

// In quarters of 64: the lower bits of 32 bytes, then their upper bits.
struct Q4_K : Eighths<144, 4, 15> {
  static constexpr int kType = 12;
  template <class Line>
  static Octets numbers(Line line, int quarter, int phase) {
    return phase ? high_nibbles(line(quarter)) : low_nibbles(line(quarter));
  }
};

// The same, with the fifth bits of eighth i in the bits of place i of 32 bytes.
struct Q5_K : Eighths<176, 5, 31> {
  static constexpr int kType = 13;
  template <class Line>
  static Octets numbers(Line line, int quarter, int phase) {
    const Octets packed = line(1 + quarter);
    return (phase ? high_nibbles(packed) : low_nibbles(packed)) | where_bit(line(0), 2 * quarter + phase, 16);
  }
};

// In halves of 128: four bits in 64 bytes, of which the lower come first, and two more in 32 bytes, of which the
// lowest come first. Each sixteen numbers have a scale.
struct Q6_K : SuperBlock<210, 0, 6, 16, 4, 63, 32, false> {
  static constexpr int kType = 14;
  static SuperScales read_scales(const uint8_t* block) {
    const Shorts scales = widen_signed(first_then_last(load_bytes(block + 192)));
    return {scales, scales, half_at(block + 208), 0};
  }
  template <class Line>
  static Octets numbers(Line line, int half, int phase) {
    const Octets packed = line(2 * half + phase % 2), upper = line(4 + half);
    if (phase == 0) return low_nibbles(packed) | shift_left<4>(upper & octets(3));
    if (phase == 1) return low_nibbles(packed) | shift_left<2>(upper & octets(12));
    if (phase == 2) return high_nibbles(packed) | (upper & octets(48));
    return high_nibbles(packed) | shift_right<2>(upper & octets(192));
  }
};
