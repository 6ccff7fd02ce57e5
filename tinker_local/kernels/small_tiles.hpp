// How much of a product with plain weights is computed at once, where registers are short of sixteen lanes; included
// inside an unnamed namespace.

constexpr int kDotRows = 4;  // few rows together
constexpr int columns_beside(int n_rows) { return n_rows > 2 ? 1 : 2; }

// The sums of some lanes, each.
template <int n>
inline void sum_each(const float (&lanes)[n][16], float (&sums)[n]) {
  for (int i = 0; i < n; ++i) sums[i] = sum(load(lanes[i]));
}

constexpr int kPanelTileRows = 4, kPanelTileColumns = 3;
constexpr int kBlockRows = 64, kBlockColumns = 12;  // that fit the nearest caches

constexpr int kWide = 1;  // Lanes that a product keeps of each of four rows
