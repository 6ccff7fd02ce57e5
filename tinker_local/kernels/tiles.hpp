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
// Adds to the integers of a tile the products of two tiles of bytes, which have signs.
#define ADD_PRODUCTS_OF_BYTES(tile, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #tile : :)

inline void configure_tiles(const volatile TileShapes& shapes) {
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
}

inline void release_tiles() { __asm__ volatile("tilerelease" : :); }
