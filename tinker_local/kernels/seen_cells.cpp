#include "seen_cells.hpp"

#include <algorithm>
#include <cstring>

namespace {

using namespace tinker;

constexpr uint16_t kUnseen = 0xfc00;  // -infinity in float16
constexpr int kHalves = 4;            // in a word

uint64_t word_at(const uint16_t* mask, int64_t cell) {
  uint64_t word;
  std::memcpy(&word, mask + cell, sizeof word);
  return word;
}

bool is_zero(uint16_t half) { return (half & 0x7fff) == 0; }

CellBlock no_cells() {
  CellBlock block{};
  std::fill_n(block.cells, kKeys, CellBlock::kNone);
  return block;
}

// Calls `each` with the cells where two masks differ, in order, until it says false; returns whether it did not.
template <class F>
bool each_difference(const uint16_t* a, const uint16_t* b, int64_t n_cells, F&& each) {
  for (int64_t first = 0; first < n_cells; first += kHalves) {
    const int64_t end = std::min(first + kHalves, n_cells);
    if (end - first == kHalves && word_at(a, first) == word_at(b, first)) continue;
    for (int64_t cell = first; cell < end; ++cell) {
      if (a[cell] != b[cell] && !each(cell)) return false;
    }
  }
  return true;
}

// The same with the cells that are seen.
template <class F>
void each_seen(const uint16_t* mask, int64_t n_cells, F&& each) {
  constexpr uint64_t unseen = kUnseen * uint64_t{0x0001000100010001};
  for (int64_t first = 0; first < n_cells; first += kHalves) {
    const int64_t end = std::min(first + kHalves, n_cells);
    if (mask && end - first == kHalves && word_at(mask, first) == unseen) continue;
    for (int64_t cell = first; cell < end; ++cell) {
      if (!mask || mask[cell] != kUnseen) each(cell);
    }
  }
}

}  // namespace

SeenByTokens::SeenByTokens(const Mask& mask, CellPositions cells)
    : mask_(mask), cells_(cells), is_image_(place_image()) {
  const auto n = static_cast<size_t>(mask.n_tokens * mask.n_streams);
  seen_.resize(n);
  path_of_.resize(n);
  for (int64_t stream = 0; stream < mask.n_streams; ++stream) {
    for (int64_t t = 0; t < mask.n_tokens; ++t) {
      const int64_t token = stream * mask.n_tokens + t;
      const uint16_t* row = mask.row(t, stream);
      if (t == 0 || !goes_on(mask.row(t - 1, stream), row, token)) begin(row, token);
      path_of_[static_cast<size_t>(token)] = &paths_.back();
    }
  }
  int32_t last = -1;
  for (size_t token = 0; token < n; ++token) {
    seen_[token].blocks = path_of_[token]->blocks.data();
    last = std::max(last, seen_[token].last);
  }
  n_parts_ = last / kPart + 1;
}

// Places the cells of tokens that see each other; false, and nothing, where the first does not see the last.
// Such a batch has one sequence.
bool SeenByTokens::place_image() {
  const int64_t n = mask_.n_tokens;
  const uint16_t* first = mask_.row(0, 0);
  if (n < 2 || mask_.n_streams != 1 || !first || !cells_.own || !cells_.positions) return false;
  if (first[cells_.own[n - 1]] == kUnseen) return false;
  std::vector<int64_t> own(cells_.own, cells_.own + n);
  std::sort(own.begin(), own.end());
  int32_t last = -1;
  each_seen(first, mask_.n_cells, [&](int64_t cell) {
    if (!std::binary_search(own.begin(), own.end(), cell)) last = std::max(last, cells_.of(cell));
  });
  for (int64_t t = 0; t < n; ++t) cells_.positions[cells_.own[t]] = ++last;
  return true;
}

// A token by itself: all that it sees is read, and laid out by position.
void SeenByTokens::begin(const uint16_t* mask, int64_t token) {
  SeenCells& seen = seen_[static_cast<size_t>(token)];
  read(mask, seen.is_plain);
  if (cells_.own && !is_image_) place_own(cells_.own[token]);
  const bool is_ranked = !lay_out(seen);
  if (is_ranked) {
    rank();
    lay_out(seen);
  }
  add_path(seen.first_block, is_ranked);
}

void SeenByTokens::read(const uint16_t* mask, bool& is_plain) {
  read_.clear();
  is_plain = true;
  each_seen(mask, mask_.n_cells, [&](int64_t cell) {
    read_.push_back({cells_.of(cell), static_cast<int32_t>(cell)});
    if (mask) is_plain &= is_zero(mask[cell]);
  });
}

// A token sees itself, last of all.
void SeenByTokens::place_own(int64_t own) {
  int32_t last = -1;
  Cell* found = nullptr;
  for (Cell& cell : read_) {
    if (cell.number == own) {
      found = &cell;
    } else {
      last = std::max(last, cell.position);
    }
  }
  if (found && cells_.positions) cells_.positions[own] = found->position = last + 1;
}

// New positions in the order of the old ones, where these are not those of one sequence. Nobody knows then
// what the order should be; all are right.
void SeenByTokens::rank() {
  std::sort(read_.begin(), read_.end(), [](const Cell& a, const Cell& b) {
    return a.position != b.position ? a.position < b.position : a.number < b.number;
  });
  int32_t n = 0;
  for (Cell& cell : read_) cell.position = n++;
}

// False where two cells have one position, or positions have large gaps.
bool SeenByTokens::lay_out(SeenCells& seen) {
  laid_.clear();
  seen.first = seen.first_block = 0, seen.last = -1;
  if (read_.empty()) return true;
  const auto [low, high] = std::minmax_element(
      read_.begin(), read_.end(), [](const Cell& a, const Cell& b) { return a.position < b.position; });
  if (low->position < 0 || high->position - low->position >= mask_.n_cells) return false;
  seen.first = low->position, seen.last = high->position, seen.first_block = seen.first / kKeys;
  laid_.assign(static_cast<size_t>(seen.last / kKeys - seen.first_block + 1), no_cells());
  for (const Cell& cell : read_) {
    CellBlock& block = laid_[static_cast<size_t>(cell.position / kKeys - seen.first_block)];
    int32_t& place = block.cells[cell.position % kKeys];
    if (place != CellBlock::kNone) return false;
    place = cell.number;
    ++block.n_cells;
  }
  return true;
}

// A path of what is laid out. Blocks that the path before has too, as those of one prompt's samples have, are
// that path's.
void SeenByTokens::add_path(int32_t first_block, bool is_ranked) {
  const Path* before = paths_.empty() ? nullptr : &paths_.back();
  paths_.push_back({first_block, is_ranked, {}, {}});
  for (size_t i = 0; i < laid_.size(); ++i) {
    const CellBlock* same = before ? before->block(first_block + static_cast<int64_t>(i)) : nullptr;
    if (same && std::memcmp(same->cells, laid_[i].cells, sizeof same->cells) == 0) {
      paths_.back().blocks.push_back(same);
      paths_.back().own.push_back(nullptr);
    } else {
      add_block(laid_[i]);
    }
  }
}

void SeenByTokens::add_block(const CellBlock& block) {
  blocks_.push_back(block);
  paths_.back().blocks.push_back(&blocks_.back());
  paths_.back().own.push_back(&blocks_.back());
}

// Whether a token sees what the one before it sees and the next position, and perhaps less at the beginning.
// Most tokens of a prompt do, and share a path. So do those of an image, without a next position.
bool SeenByTokens::goes_on(const uint16_t* before, const uint16_t* mask, int64_t token) {
  const SeenCells& previous = seen_[static_cast<size_t>(token - 1)];
  SeenCells& seen = seen_[static_cast<size_t>(token)];
  seen = previous;
  if (!mask) return true;
  if (previous.last < previous.first || paths_.back().is_ranked) return false;
  int64_t fresh = -1, n_gone = 0;
  const bool adds_one_at_most = each_difference(before, mask, mask_.n_cells, [&](int64_t cell) {
    const bool was_seen = before[cell] != kUnseen, is_seen = mask[cell] != kUnseen;
    if (is_seen) seen.is_plain &= is_zero(mask[cell]);
    if (was_seen && !is_seen) {
      ++n_gone;
      seen.first = std::max(seen.first, cells_.of(cell) + 1);
    }
    if (was_seen) return true;
    if (fresh >= 0) return false;
    fresh = cell;
    return true;
  });
  if (!adds_one_at_most || n_gone != seen.first - previous.first) return false;
  if (fresh < 0) return is_image_;
  if (seen.first > previous.last) return false;  // nothing in common: the first token of another sequence
  seen.last = previous.last + 1;
  if (cells_.own) {
    if (cells_.own[token] != fresh) return false;
    if (cells_.positions) cells_.positions[fresh] = seen.last;
  }
  if (cells_.of(fresh) != seen.last) return false;
  append(seen.last, fresh);
  return true;
}

// Adds a position to the last path. Tokens that were there before do not look so far.
void SeenByTokens::append(int32_t position, int64_t cell) {
  Path& path = paths_.back();
  const auto i = static_cast<size_t>(position / kKeys - path.first_block);
  if (i == path.blocks.size()) add_block(no_cells());
  if (!path.own[i]) {
    blocks_.push_back(*path.blocks[i]);
    path.blocks[i] = path.own[i] = &blocks_.back();
  }
  CellBlock& block = *path.own[i];
  block.cells[position % kKeys] = static_cast<int32_t>(cell);
  ++block.n_cells;
}
