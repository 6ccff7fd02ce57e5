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

// --- packed numbers ---
//
// A stretch is 256 weights of a row, or what is left of it: one block, or several of 32. `numbers` gives the
// integers of a run of 32. A weight is its integer, less kZero, times the scale of its group of kGroup; where
// kHasOffset, plus the offset of its run. Scales and offsets are products of at most two numbers, rounded once.

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
  static constexpr int kBytes = bytes_of_block, kSize = 32, kGroup = 32, kZero = zero;
  static constexpr bool kHasOffset = has_offset;
  static float scale(const uint8_t* stretch, int run) { return half_at(stretch + run * kBytes); }
  static float offset(const uint8_t* stretch, int run) { return half_at(stretch + run * kBytes + 2); }
};

struct Q4_0 : Simple<18, 8, false> {
  static constexpr int kType = 2;
  static Numbers numbers(const uint8_t* stretch, int run) { return nibbles(load_bytes(stretch + run * kBytes + 2)); }
};

struct Q4_1 : Simple<20, 0, true> {
  static constexpr int kType = 3;
  static Numbers numbers(const uint8_t* stretch, int run) { return nibbles(load_bytes(stretch + run * kBytes + 4)); }
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

// OCP Microscaling Formats 1.0: a power of two, and 4-bit floats, here doubled.
struct MXFP4 : Simple<17, 0, false> {
  static constexpr int kType = 39;
  static constexpr int8_t kDoubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  static Numbers numbers(const uint8_t* stretch, int run) { return looked_up(kDoubled, stretch + run * kBytes + 1); }
  static float scale(const uint8_t* stretch, int run) {
    const uint32_t e = stretch[run * kBytes], word = e < 2 ? 0x00200000u << e : (e - 1) << 23;
    float half_of_scale;
    memcpy(&half_of_scale, &word, sizeof word);
    return half_of_scale;
  }
};

// Blocks of 256.
template <int bytes_of_block, int group, int zero, bool has_offset>
struct Large {
  static constexpr int kBytes = bytes_of_block, kSize = 256, kGroup = group, kZero = zero;
  static constexpr bool kHasOffset = has_offset;
};

// A scale and an offset of six bits for each eighth of a block, all in twelve bytes (get_scale_min_k4).
template <int bytes_of_block>
struct Eighths : Large<bytes_of_block, 32, 0, true> {
  static float scale(const uint8_t* block, int i) {
    const uint8_t* p = block + 4;
    const int six_bits = i < 4 ? p[i] & 63 : (p[4 + i] & 15) | (p[i - 4] >> 6) << 4;
    return half_at(block) * static_cast<float>(six_bits);
  }
  static float offset(const uint8_t* block, int i) {
    const uint8_t* p = block + 4;
    const int six_bits = i < 4 ? p[4 + i] & 63 : p[4 + i] >> 4 | (p[i] >> 6) << 4;
    return -(half_at(block + 2) * static_cast<float>(six_bits));
  }
};

// In quarters of 64: the lower bits of 32 bytes, then their upper bits.
struct Q4_K : Eighths<144> {
  static constexpr int kType = 12;
  static Numbers numbers(const uint8_t* block, int run) {
    const uint8_t* packed = block + 16 + 32 * (run / 2);
    const Bytes first = load_bytes(packed), last = load_bytes(packed + 16);
    if (run % 2) return {widen(high_nibbles(first)), widen(high_nibbles(last))};
    return {widen(low_nibbles(first)), widen(low_nibbles(last))};
  }
};

// The same, with the fifth bits of eighth i in the bits of place i of 32 bytes.
struct Q5_K : Eighths<176> {
  static constexpr int kType = 13;
  static Numbers numbers(const uint8_t* block, int run) {
    return {widen(of_sixteen(block, run, 0)), widen(of_sixteen(block, run, 16))};
  }

 private:
  static Bytes of_sixteen(const uint8_t* block, int run, int first) {
    const Bytes packed = load_bytes(block + 48 + 32 * (run / 2) + first);
    const Bytes four = run % 2 ? high_nibbles(packed) : low_nibbles(packed);
    const Bytes place = bytes(1 << run);
    return four | (equal(load_bytes(block + 16 + first) & place, place) & bytes(16));
  }
};

// In halves of 128: four bits in 64 bytes, of which the lower come first, and two more in 32 bytes, of which the
// lowest come first. Each sixteen numbers have a scale.
struct Q6_K : Large<210, 16, 32, false> {
  static constexpr int kType = 14;
  static float scale(const uint8_t* block, int group) {
    return half_at(block + 208) * static_cast<float>(static_cast<int8_t>(block[192 + group]));
  }
  static Numbers numbers(const uint8_t* block, int run) {
    return {widen(of_sixteen(block, run, 0)), widen(of_sixteen(block, run, 16))};
  }

 private:
  static Bytes of_sixteen(const uint8_t* block, int run, int first) {
    const int half = run / 4, quarter = run % 4;
    const Bytes packed = load_bytes(block + 64 * half + 32 * (quarter % 2) + first);
    const Bytes upper = load_bytes(block + 128 + 32 * half + first);
    switch (quarter) {
      case 0: return low_nibbles(packed) | shift_left<4>(upper & bytes(3));
      case 1: return low_nibbles(packed) | shift_left<2>(upper & bytes(12));
      case 2: return high_nibbles(packed) | (upper & bytes(48));
      default: return high_nibbles(packed) | shift_right<2>(upper & bytes(192));
    }
  }
};

struct IQ4_XS : Large<136, 32, 0, false> {
  static constexpr int kType = 23;
  static Numbers numbers(const uint8_t* block, int run) { return looked_up(kNonLinear, block + 8 + 16 * run); }
  static float scale(const uint8_t* block, int i) {
    const int high = block[2] | block[3] << 8;
    const int six_bits = (block[4 + i / 2] >> 4 * (i % 2) & 15) | (high >> 2 * i & 3) << 4;
    return half_at(block) * static_cast<float>(six_bits - 32);
  }
};
