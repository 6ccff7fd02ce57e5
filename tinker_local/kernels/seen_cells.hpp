// What each token of a micro-batch sees, found from its row of the attention mask.
#pragma once

#include <deque>
#include <vector>

#include "attention.hpp"

namespace tinker {

// A mask in memory: float16, for each stream and token a number a cell.
struct Mask {
  const char* data;  // null: all cells are seen
  int64_t n_cells, n_tokens, n_streams;
  size_t token_stride, stream_stride;  // bytes; 0 where streams share a mask

  const uint16_t* row(int64_t token, int64_t stream) const {
    return data ? reinterpret_cast<const uint16_t*>(data + token * token_stride + stream * stream_stride)
                : nullptr;
  }
};

// Where the cells of a KV cache stand in their sequences.
struct CellPositions {
  int32_t* positions;  // of each cell; null: a cell's number is its position
  const int64_t* own;  // the cell that each token of the batch is written to; null: positions are complete

  int32_t of(int64_t cell) const { return positions ? positions[cell] : static_cast<int32_t>(cell); }
};

// The SeenCells of a micro-batch's tokens: made once for all layers that have the mask.
class SeenByTokens {
 public:
  // Sets the positions of tokens' own cells. A sequence's tokens are computed in order, so a token's position
  // is one more than the largest of the others that it sees. Tokens of an image may see each other: all of
  // them come after what else they see, in the order of the batch. Throws std::bad_alloc.
  SeenByTokens(const Mask& mask, CellPositions cells);

  const SeenCells& of(int64_t token, int64_t stream) const {
    return seen_[static_cast<size_t>(stream * mask_.n_tokens + token)];
  }

  // Parts that hold everything that is seen.
  int64_t n_parts() const { return n_parts_; }

  bool is_of(const Mask& mask) const {
    return mask_.data == mask.data && mask_.n_cells == mask.n_cells && mask_.n_tokens == mask.n_tokens &&
           mask_.n_streams == mask.n_streams;
  }

 private:
  struct Cell {
    int32_t position, number;
  };

  // The blocks of tokens that follow each other.
  struct Path {
    int32_t first_block = 0;
    bool is_ranked = false;                // positions are not those of the cache
    std::vector<const CellBlock*> blocks;
    std::vector<CellBlock*> own;           // the same, null for those that the path before has too

    const CellBlock* block(int64_t number) const {
      const int64_t i = number - first_block;
      return i < 0 || i >= static_cast<int64_t>(blocks.size()) ? nullptr : blocks[static_cast<size_t>(i)];
    }
  };

  bool place_image();
  void begin(const uint16_t* mask, int64_t token);
  void read(const uint16_t* mask, bool& is_plain);
  void place_own(int64_t own);
  void rank();
  bool lay_out(SeenCells& seen);
  void add_path(int32_t first_block, bool is_ranked);
  void add_block(const CellBlock& block);
  bool goes_on(const uint16_t* before, const uint16_t* mask, int64_t token);
  void append(int32_t position, int64_t cell);

  const Mask mask_;
  const CellPositions cells_;
  std::vector<SeenCells> seen_;
  std::vector<const Path*> path_of_;  // of each token
  std::deque<Path> paths_;
  std::deque<CellBlock> blocks_;
  std::vector<Cell> read_;            // those of the token at hand ..
  std::vector<CellBlock> laid_;       // .. and the same by position
  int64_t n_parts_ = 0;
  const bool is_image_;               // tokens see each other
};

}  // namespace tinker
