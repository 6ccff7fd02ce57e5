// How weights become float32, sixteen at a time, for each type of GGUF file that has a kernel here. Formats
// are ggml's (ggml-common.h, `dequantize_row_*`): a block has a scale and small integers.
//
// Over `Lanes`, load_half, load_bfloat, from_half, and `Bytes`, sixteen of them, which the including file defines.
// `each` calls its argument with the number of a group of sixteen and their weights. Products in it are exact, or
// rounded once, as ggml's are.

// Plain numbers have blocks of sixteen.
struct F32 {
  static constexpr int kType = 0, kSize = 16, kBytes = 64;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    use(0, load(reinterpret_cast<const float*>(block)));
  }
};

struct F16 {
  static constexpr int kType = 1, kSize = 16, kBytes = 32;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    use(0, load_half(reinterpret_cast<const uint16_t*>(block)));
  }
};

struct BF16 {
  static constexpr int kType = 30, kSize = 16, kBytes = 32;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    use(0, load_bfloat(reinterpret_cast<const uint16_t*>(block)));
  }
};

inline float half_at(const uint8_t* p) {
  uint16_t half;
  memcpy(&half, p, sizeof half);
  return from_half(half);
}

inline Bytes low_nibbles(Bytes a) { return a & bytes(15); }
inline Bytes high_nibbles(Bytes a) { return shift_right<4>(a); }

// q scale + offset
inline Lanes scaled(Bytes q, float scale, float offset) { return fma(from_bytes(q), all(scale), all(offset)); }

struct Q4_0 {
  static constexpr int kType = 2, kSize = 32, kBytes = 18;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const Bytes q = load_bytes(block + 2);
    const float scale = half_at(block);
    use(0, scaled(low_nibbles(q), scale, -8 * scale));
    use(1, scaled(high_nibbles(q), scale, -8 * scale));
  }
};

struct Q4_1 {
  static constexpr int kType = 3, kSize = 32, kBytes = 20;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const Bytes q = load_bytes(block + 4);
    const float scale = half_at(block), least = half_at(block + 2);
    use(0, scaled(low_nibbles(q), scale, least));
    use(1, scaled(high_nibbles(q), scale, least));
  }
};

// The fifth bits of sixteen numbers, each a bit of two bytes.
inline Bytes fifth_bits(const uint8_t* p) { return spread_bits(p) & bytes(16); }

struct Q5_0 {
  static constexpr int kType = 6, kSize = 32, kBytes = 22;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const Bytes q = load_bytes(block + 6);
    const float scale = half_at(block);
    use(0, scaled(low_nibbles(q) | fifth_bits(block + 2), scale, -16 * scale));
    use(1, scaled(high_nibbles(q) | fifth_bits(block + 4), scale, -16 * scale));
  }
};

struct Q5_1 {
  static constexpr int kType = 7, kSize = 32, kBytes = 24;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const Bytes q = load_bytes(block + 8);
    const float scale = half_at(block), least = half_at(block + 2);
    use(0, scaled(low_nibbles(q) | fifth_bits(block + 4), scale, least));
    use(1, scaled(high_nibbles(q) | fifth_bits(block + 6), scale, least));
  }
};

struct Q8_0 {
  static constexpr int kType = 8, kSize = 32, kBytes = 34;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const Lanes scale = all(half_at(block));
    use(0, from_signed(load_bytes(block + 2)) * scale);
    use(1, from_signed(load_bytes(block + 18)) * scale);
  }
};

// A scale and a minimum of six bits for each eighth of a block, all in twelve bytes (get_scale_min_k4). Both
// are returned as factors: a weight is q scale + offset.
struct Eighth {
  float scale, offset;

  Eighth(const uint8_t* block, int i) {
    const uint8_t* p = block + 4;
    const int scale6 = i < 4 ? p[i] & 63 : (p[4 + i] & 15) | (p[i - 4] >> 6) << 4;
    const int least6 = i < 4 ? p[4 + i] & 63 : p[4 + i] >> 4 | (p[i] >> 6) << 4;
    scale = half_at(block) * static_cast<float>(scale6);
    offset = -(half_at(block + 2) * static_cast<float>(least6));
  }
};

// In quarters of 64: the lower bits of 32 bytes, then their upper bits.
struct Q4_K {
  static constexpr int kType = 12, kSize = 256, kBytes = 144;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    for (int i = 0; i < 4; ++i) {
      const Bytes left = load_bytes(block + 16 + 32 * i), right = load_bytes(block + 32 + 32 * i);
      const Eighth low(block, 2 * i), high(block, 2 * i + 1);
      use(4 * i, scaled(low_nibbles(left), low.scale, low.offset));
      use(4 * i + 1, scaled(low_nibbles(right), low.scale, low.offset));
      use(4 * i + 2, scaled(high_nibbles(left), high.scale, high.offset));
      use(4 * i + 3, scaled(high_nibbles(right), high.scale, high.offset));
    }
  }
};

// The same, with the fifth bits of eighth i in the bits of place i of 32 bytes.
struct Q5_K {
  static constexpr int kType = 13, kSize = 256, kBytes = 176;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    Bytes left = load_bytes(block + 16), right = load_bytes(block + 32);
    for (int i = 0; i < 8; ++i) {
      const uint8_t* packed = block + 48 + 32 * (i / 2);
      const Eighth eighth(block, i);
      const auto q = [=](Bytes four, Bytes fifth) {
        return (i % 2 ? high_nibbles(four) : low_nibbles(four)) | shift_left<4>(fifth & bytes(1));
      };
      use(2 * i, scaled(q(load_bytes(packed), left), eighth.scale, eighth.offset));
      use(2 * i + 1, scaled(q(load_bytes(packed + 16), right), eighth.scale, eighth.offset));
      left = shift_right<1>(left), right = shift_right<1>(right);
    }
  }
};

// In halves of 128: four bits in 64 bytes, of which the lower come first, and two more in 32 bytes, of which the
// lowest come first. Each sixteen numbers have a scale.
struct Q6_K {
  static constexpr int kType = 14, kSize = 256, kBytes = 210;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const float d = half_at(block + 208);
    for (int half = 0; half < 2; ++half) {
      const uint8_t* fours = block + 64 * half;
      Bytes upper[2] = {load_bytes(block + 128 + 32 * half), load_bytes(block + 144 + 32 * half)};
      for (int i = 0; i < 8; ++i) {
        const Bytes four = load_bytes(fours + 16 * (i % 4));
        const Bytes q = (i < 4 ? low_nibbles(four) : high_nibbles(four)) | shift_left<4>(upper[i % 2] & bytes(3));
        upper[i % 2] = shift_right<2>(upper[i % 2]);
        const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + 8 * half + i]));
        use(8 * half + i, scaled(q, scale, -32 * scale));
      }
    }
  }
};

// Nibbles are places in a table.
template <class Use>
inline void looked_up(const int8_t* table, const uint8_t* packed, float scale, int group, Use use) {
  const Bytes q = load_bytes(packed), numbers = load_bytes(table);
  use(group, from_signed(look_up(numbers, low_nibbles(q))) * all(scale));
  use(group + 1, from_signed(look_up(numbers, high_nibbles(q))) * all(scale));
}

constexpr int8_t kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct IQ4_NL {
  static constexpr int kType = 20, kSize = 32, kBytes = 18;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    looked_up(kNonLinear, block + 2, half_at(block), 0, use);
  }
};

struct IQ4_XS {
  static constexpr int kType = 23, kSize = 256, kBytes = 136;
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const float d = half_at(block);
    const int high = block[2] | block[3] << 8;
    for (int i = 0; i < 8; ++i) {
      const int scale = (block[4 + i / 2] >> 4 * (i % 2) & 15) | (high >> 2 * i & 3) << 4;
      looked_up(kNonLinear, block + 8 + 16 * i, d * static_cast<float>(scale - 32), 2 * i, use);
    }
  }
};

// OCP Microscaling Formats 1.0: a power of two, and 4-bit floats, here doubled.
struct MXFP4 {
  static constexpr int kType = 39, kSize = 32, kBytes = 17;
  static constexpr int8_t kDoubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  template <class Use>
  static void each(const uint8_t* block, Use use) {
    const uint32_t e = block[0], word = e < 2 ? 0x00200000u << e : (e - 1) << 23;
    float half_of_scale;
    memcpy(&half_of_scale, &word, sizeof word);
    looked_up(kDoubled, block + 1, half_of_scale, 0, use);
  }
};
