// What LDTILECFG reads: how many rows the tiles of a thread have, and how many bytes each row. Included inside an
// unnamed namespace.

struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes_of_row[16];
  uint8_t n_rows[16];
};
static_assert(sizeof(TileShapes) == 64);
