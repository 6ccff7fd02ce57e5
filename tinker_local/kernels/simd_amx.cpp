// AMX: products with weights in tiles (bfloat_tile_kernels.hpp, integer_tile_kernels.hpp), everything else as with
// AVX-512. A thread's tiles are configured within a task and released at its end: torch in the same process may use
// its own.
#include "cpu.hpp"
#include "simd_path.hpp"

#if defined(TINKER_LOCAL_EMULATE_AMX) || (defined(TINKER_LOCAL_AMX) && defined(__AVX512F__))
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace {

// How many rows the tiles of this thread have, and how many bytes each row: LDTILECFG's 64 bytes.
struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes_of_row[16];
  uint8_t n_rows[16];
};
static_assert(sizeof(TileShapes) == 64);

#if defined(TINKER_LOCAL_EMULATE_AMX)
#include "avx2.hpp"
#include "emulated_tiles.hpp"
#else
#include "avx512.hpp"
#include "tiles.hpp"
#endif

#include "weight_kernels.hpp"

using tinker::TiledRow;
using tinker::Weights;

constexpr int kSide = tinker::kRowsOfTile;  // columns of a tile, and rows of a block
constexpr int kStep = tinker::kRun;         // numbers of a column that a tile has
constexpr int kTile = kSide * kStep;        // numbers of a tile of weights
constexpr int kSums = kSide * kSide;        // floats of a tile of sums
constexpr int kColumnsTogether = 2 * kSide;  // of two tiles: a strip
constexpr int kRowsTogether = 2 * kSide;     // of two blocks
static_assert(tinker::kTiledColumns % kColumnsTogether == 0);

// What the path is but for products in tiles.
const tinker::SimdPath* base() {
  const tinker::SimdPath* avx512 = tinker::avx512_path();
#if defined(TINKER_LOCAL_EMULATE_AMX)
  return avx512 ? avx512 : tinker::avx2_path();
#else
  return avx512;
#endif
}

#include "bfloat_tile_kernels.hpp"

#include "integer_tile_kernels.hpp"

bool is_permitted = false;

}  // namespace

bool tinker::request_amx() {
  static const bool answer = base() && may_use_tiles();
  return is_permitted = answer;
}

const tinker::SimdPath* tinker::amx_path() {
  if (!is_permitted) return nullptr;
  static const SimdPath path = [] {
    SimdPath result = *base();
    result.name = "amx";
    result.split_row = split_row;
    result.tiled_product = tiled_product;
    result.integer_product = find_integer_product;
    return result;
  }();
  return &path;
}
#else
bool tinker::request_amx() { return false; }
const tinker::SimdPath* tinker::amx_path() { return nullptr; }
#endif
