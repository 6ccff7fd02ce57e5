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
