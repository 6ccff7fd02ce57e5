// Sixteen rows of sixteen floats to columns, with AVX-512; included inside an unnamed namespace.

// Eight floats of row i, and of row i + 4 behind them. Rows may just have been written in halves.
inline __m512 halves_of(const float* row, int stride) {
  const __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(row)));
  return _mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_castps_pd(_mm256_loadu_ps(row + 4 * stride)), 1));
}

// Four rows, and the four behind them, to fours of a column: column 4 i + j in part i of register j, in both halves.
inline void transpose_fours(const float* from, int stride, __m512 (&to)[4]) {
  __m512 pairs[4];
  for (int i = 0; i < 4; i += 2) {
    const __m512 a = halves_of(from + i * stride, stride), b = halves_of(from + (i + 1) * stride, stride);
    pairs[i] = _mm512_unpacklo_ps(a, b);
    pairs[i + 1] = _mm512_unpackhi_ps(a, b);
  }
  for (int j = 0; j < 2; ++j) {
    const __m512d a = _mm512_castps_pd(pairs[j]), b = _mm512_castps_pd(pairs[2 + j]);
    to[2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    to[2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
  }
}

inline void transpose16(const float* from, int stride, float* to, int to_stride) {
  for (int i = 0; i < 16; i += 8, to += 8 * to_stride) {
    __m512 first[4], last[4];
    transpose_fours(from + i, stride, first);
    transpose_fours(from + 8 * stride + i, stride, last);
    for (int j = 0; j < 4; ++j) {
      _mm512_storeu_ps(to + j * to_stride, _mm512_shuffle_f32x4(first[j], last[j], 0x88));
      _mm512_storeu_ps(to + (4 + j) * to_stride, _mm512_shuffle_f32x4(first[j], last[j], 0xdd));
    }
  }
}
