// The shapes of AMX's tiles. Included inside an unnamed namespace.

constexpr int kSide = tinker::kRowsOfTile;  // rows of a tile, or columns
constexpr int kStep = tinker::kRun;         // numbers of bfloat16 that a tile has of each
constexpr int kTile = kSide * kStep;        // and of all

// What LDTILECFG reads: how many rows the tiles of a thread have, and how many bytes each row.
struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes_of_row[16];
  uint8_t n_rows[16];
};
static_assert(sizeof(TileShapes) == 64);
