// What both x86 paths do alike; included inside an unnamed namespace by each.

// Eight lanes to one, in halves: lane i with lane i + 4, then i + 2, then i + 1.
inline float sum8(__m256 a) {
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

inline float maximum8(__m256 a) {
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

// Sixteen bytes.
struct Bytes {
  __m128i v;
};

inline Bytes load_bytes(const void* p) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))}; }
inline Bytes bytes(int a) { return {_mm_set1_epi8(static_cast<char>(a))}; }
inline Bytes operator&(Bytes a, Bytes b) { return {_mm_and_si128(a.v, b.v)}; }
inline Bytes operator|(Bytes a, Bytes b) { return {_mm_or_si128(a.v, b.v)}; }
template <int n>
inline Bytes shift_right(Bytes a) {
  return Bytes{_mm_srli_epi16(a.v, n)} & bytes(0xff >> n);
}
template <int n>
inline Bytes shift_left(Bytes a) {
  return Bytes{_mm_slli_epi16(a.v, n)} & bytes(0xff << n & 0xff);
}
// The numbers at some places, all below 16, of a table.
inline Bytes look_up(Bytes table, Bytes places) { return {_mm_shuffle_epi8(table.v, places.v)}; }
// Byte i is 255 where bit i of two bytes is set.
inline Bytes spread_bits(const uint8_t* p) {
  const __m128i word = _mm_cvtsi32_si128(p[0] | p[1] << 8);
  const __m128i twice = _mm_shuffle_epi8(word, _mm_set_epi64x(0x0101010101010101, 0));
  const __m128i place = _mm_set1_epi64x(static_cast<long long>(0x8040201008040201));
  return {_mm_cmpeq_epi8(_mm_and_si128(twice, place), place)};
}
inline Bytes equal(Bytes a, Bytes b) { return {_mm_cmpeq_epi8(a.v, b.v)}; }

// Sixteen integers of sixteen bits.
struct Shorts {
  __m256i v;
};

inline Shorts widen(Bytes a) { return {_mm256_cvtepu8_epi16(a.v)}; }
inline Shorts widen_signed(Bytes a) { return {_mm256_cvtepi8_epi16(a.v)}; }
inline void store_pairs(float* p, Shorts a) { _mm256_storeu_ps(p, _mm256_castsi256_ps(a.v)); }

inline Shorts shorts(int a) { return {_mm256_set1_epi16(static_cast<short>(a))}; }
inline Shorts operator+(Shorts a, Shorts b) { return {_mm256_add_epi16(a.v, b.v)}; }
inline Shorts operator*(Shorts a, Shorts b) { return {_mm256_mullo_epi16(a.v, b.v)}; }
inline Shorts twice(const int16_t* p) {
  return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

// 32 bytes.
struct Octets {
  __m256i v;
};

inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline Octets load_octets(const uint8_t* p) { return {load_256(p)}; }
inline Octets octets(int a) { return {_mm256_set1_epi8(static_cast<char>(a))}; }
inline Octets operator&(Octets a, Octets b) { return {_mm256_and_si256(a.v, b.v)}; }
inline Octets operator|(Octets a, Octets b) { return {_mm256_or_si256(a.v, b.v)}; }
template <int n>
inline Octets shift_right(Octets a) {
  return Octets{_mm256_srli_epi16(a.v, n)} & octets(0xff >> n);
}
template <int n>
inline Octets shift_left(Octets a) {
  return Octets{_mm256_slli_epi16(a.v, n)} & octets(0xff << n & 0xff);
}
inline Octets equal(Octets a, Octets b) { return {_mm256_cmpeq_epi8(a.v, b.v)}; }
inline void store_octets(float* p, Octets a) { _mm256_storeu_ps(p, _mm256_castsi256_ps(a.v)); }

// Sums of a column's products, in eight parts.
struct Products {
  __m256i v;
};

inline Products products(Shorts a, const int16_t* x) {
  return {_mm256_madd_epi16(a.v, load_256(x))};
}
inline Products operator+(Products a, Products b) { return {_mm256_add_epi32(a.v, b.v)}; }

// In each half, the places of its scale number i, eight times.
struct ScalePlaces {
  uint8_t of[8][32] = {};
  constexpr ScalePlaces() {
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 32; ++j) of[i][j] = static_cast<uint8_t>(2 * i + j % 2);
    }
  }
};
alignas(32) constexpr ScalePlaces kScalePlaces;

// Products of run i, times its scales. Two products are below 2^15.
inline Products products(Octets a, const int8_t* x, Shorts scales, int i) {
  const __m256i scale = _mm256_shuffle_epi8(scales.v, load_256(kScalePlaces.of[i]));
  return {_mm256_madd_epi16(_mm256_maddubs_epi16(a.v, load_256(x)), scale)};
}

// Four numbers, one of each column.
struct Four {
  __m128 v;
};

inline Four four(float a) { return {_mm_set1_ps(a)}; }
inline Four set_four(float a, float b, float c, float d) { return {_mm_setr_ps(a, b, c, d)}; }
inline void store_four(float* p, Four a) { _mm_storeu_ps(p, a.v); }
inline Four operator*(Four a, Four b) { return {_mm_mul_ps(a.v, b.v)}; }
inline Four fma(Four a, Four b, Four c) { return {_mm_fmadd_ps(a.v, b.v, c.v)}; }

// The parts of each column added, less a number.
inline Four join(const Products (&a)[4], int less) {
  const auto halve = [](__m256i x, __m256i y) {
    return _mm256_add_epi32(_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y));
  };
  const __m256i left = halve(a[0].v, a[1].v), right = halve(a[2].v, a[3].v);
  const __m256i both = _mm256_add_epi32(_mm256_unpacklo_epi64(left, right), _mm256_unpackhi_epi64(left, right));
  const __m128i whole = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  return {_mm_cvtepi32_ps(_mm_sub_epi32(whole, _mm_set1_epi32(less)))};
}

inline int32_t four_bytes(const void* p) {
  int32_t result;
  memcpy(&result, p, sizeof result);
  return result;
}
