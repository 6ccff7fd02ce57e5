// The instructions of AMX on eight tiles of up to sixteen rows of 64 bytes, included inside an unnamed namespace. They
// are written here since GCC's own may come before stores to the memory that they read: GCC does not say that they
// read it.
//
// A tile's number is part of an instruction, hence the macros. `stride` is the bytes from one row to the next.

#define LOAD_TILE(tile, from, stride) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"(static_cast<int64_t>(stride)) : "memory")
#define STORE_TILE(tile, to, stride) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"(static_cast<int64_t>(stride)) : "memory")
#define CLEAR_TILE(tile) __asm__ volatile("tilezero %%tmm" #tile : :)
// Adds to the float32 of a tile the products of two tiles of bfloat16: of each row of `a` with each column of `b`.
#define ADD_PRODUCTS(tile, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #tile : :)

// Adds to the integers of a tile the products of two tiles of bytes: of each row of `a` with each column of `b`. Those
// of `a` have signs; those of `b` as well, or none.
#define ADD_SIGNED(tile, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #tile : :)
#define ADD_UNSIGNED(tile, a, b) __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #tile : :)

inline void configure_tiles(const volatile TileShapes& shapes) {
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
}

inline void release_tiles() { __asm__ volatile("tilerelease" : :); }

// The nearest numbers of bfloat16 to 32 others, ties to even.
inline void store_bfloats(uint16_t* p, Lanes a, Lanes b) {
  _mm512_storeu_si512(p, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.v, a.v)));
}

// Sixteen integers.
struct Wholes {
  __m512i v;
};
inline Wholes no_wholes() { return {_mm512_setzero_si512()}; }
inline Wholes all_wholes(int32_t a) { return {_mm512_set1_epi32(a)}; }
inline Wholes load_wholes(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Wholes operator+(Wholes a, Wholes b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Wholes operator*(Wholes a, Wholes b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
// Two products of sixteen bits are added to each.
inline Wholes add_pairs(Wholes a, Wholes b, Wholes c) { return {_mm512_dpwssd_epi32(a.v, b.v, c.v)}; }
inline Lanes to_lanes(Wholes a) { return {_mm512_cvtepi32_ps(a.v)}; }
// 256 times the ones, plus the others.
inline Lanes in_sixteen_bits(const int32_t* high, const int32_t* low) {
  return to_lanes({_mm512_add_epi32(_mm512_slli_epi32(load_wholes(high).v, 8), load_wholes(low).v)});
}

// Whether this processor has AMX with bfloat16 and bytes, and Linux permits its use: Documentation/arch/x86/xstate.rst.
inline bool may_use_tiles() {
  constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM of XFEATURE_XTILEDATA
  constexpr unsigned needed = 1u << 22 | 1u << 24 | 1u << 25;
  unsigned a, b, c, features;
  return __get_cpuid_count(7, 0, &a, &b, &c, &features) && (features & needed) == needed &&
         syscall(SYS_arch_prctl, request, tile_data) == 0;
}
