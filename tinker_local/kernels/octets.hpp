// 32 bytes as two `Bytes`, where no register has as many; included inside an unnamed namespace.

struct Octets {
  Bytes first, last;
};
inline Octets load_octets(const uint8_t* p) { return {load_bytes(p), load_bytes(p + 16)}; }
inline Octets octets(int a) { return {bytes(a), bytes(a)}; }
inline Octets operator&(Octets a, Octets b) { return {a.first & b.first, a.last & b.last}; }
inline Octets operator|(Octets a, Octets b) { return {a.first | b.first, a.last | b.last}; }
template <int n>
inline Octets shift_right(Octets a) {
  return {shift_right<n>(a.first), shift_right<n>(a.last)};
}
template <int n>
inline Octets shift_left(Octets a) {
  return {shift_left<n>(a.first), shift_left<n>(a.last)};
}
inline Octets equal(Octets a, Octets b) { return {equal(a.first, b.first), equal(a.last, b.last)}; }
