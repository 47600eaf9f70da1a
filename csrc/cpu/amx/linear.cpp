// linear for bf16 activations and bf16 weights by tdpbf16ps: 32 rows by a panel's 32 outputs in
// four tiles, 32 k an instruction. A leaf starts from tiles of +0, which is the order of
// isa/leaf_sums.h, so the bits are the same. Where an exponent is too small for that
// (csrc/cpu/bf16_pairs.h), FMAs take the place of tiles.
#include "../bf16_pairs.h"
#include "../isa/linear_panels.h"
#include "tile_unit.h"

namespace bitlens::amx {
namespace {

constexpr int64_t kRows = 2 * kTileRowsEach, kHeaderWords = kPairHeaderBytes / 4;
constexpr int64_t kBlockPairs = kPairBlock / 2;  // words of a row in a block of 32 k
// Up to so many rows, tiles would be mostly empty and weights are read at the speed of memory.
constexpr int64_t kFewRows = 8;

constexpr int64_t blocks_of(int64_t k) { return (k + kPairBlock - 1) / kPairBlock; }

int64_t packed_words(int64_t rows, int64_t k) {
  const int64_t whole_rows = (rows + kTileRowsEach - 1) / kTileRowsEach * kTileRowsEach;
  return kHeaderWords + blocks_of(k) * whole_rows * kBlockPairs;
}

// A header with the least exponent, then [blocks of 32 k][16 or 32 rows][16 pairs], zero where
// there is no row or k.
void pack_rows(const void* x, DType, int64_t rows, int64_t k, int64_t stride, uint32_t* words) {
  const uint16_t* in = static_cast<const uint16_t*>(x);
  put_exponent(words, in, rows, k, stride);
  std::memset(words + kHeaderWords, 0,
              static_cast<size_t>(packed_words(rows, k) - kHeaderWords) * sizeof(uint32_t));
  const int64_t block_words = (packed_words(rows, k) - kHeaderWords) / (k == 0 ? 1 : blocks_of(k));
  for (int64_t row = 0; row < rows; ++row) {
    uint32_t* out = words + kHeaderWords + row * kBlockPairs;
    for (int64_t kk = 0; kk < k; kk += kPairBlock, out += block_words) {
      const int64_t count = smaller(kPairBlock, k - kk);
      std::memcpy(out, in + row * stride + kk, static_cast<size_t>(count) * sizeof(uint16_t));
      for (int64_t i = 0; i < kBlockPairs; ++i) out[i] = out[i] << 16 | out[i] >> 16;
    }
  }
}

// A leaf of a panel in blocks of 16 words by 32 outputs. The last block of a ragged depth is copied
// and padded with zeros, so that tiles read nothing beyond the panel.
struct LeafOfPanel {
  const uint32_t* pairs;
  int64_t blocks, whole_blocks;
  alignas(64) uint32_t last[kBlockPairs * 32];

  LeafOfPanel(const uint32_t* leaf, int64_t depth)
      : pairs(leaf), blocks(blocks_of(depth)), whole_blocks(depth / kPairBlock) {
    if (whole_blocks == blocks) return;
    const int64_t words = (depth % kPairBlock + 1) / 2 * 32;
    std::memset(last, 0, sizeof(last));
    std::memcpy(last, pairs + whole_blocks * kBlockPairs * 32,
                static_cast<size_t>(words) * sizeof(uint32_t));
  }

  const uint32_t* block(int64_t i) const {
    return i < whole_blocks ? pairs + i * kBlockPairs * 32 : last;
  }
};

// Leaf sums of up to 32 rows, kBoth: more than 16 of them. x: the leaf's first block.
template <bool kBoth>
void leaf_tiles(const uint32_t* x, const LeafOfPanel& w, float (*out)[32]) {
  constexpr int64_t x_block = (kBoth ? kRows : kTileRowsEach) * kBlockPairs;
  constexpr int kStride = 64, kPanelStride = 128;
  settle(x);
  settle(w.pairs);
  settle(w.last);
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kBoth) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t i = 0; i < w.blocks; ++i, x += x_block) {
    const uint32_t* b = w.block(i);
    _tile_loadd(4, x, kStride);
    _tile_loadd(6, b, kPanelStride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kTileRowsEach, kPanelStride);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kBoth) {
      _tile_loadd(5, x + kTileRowsEach * kBlockPairs, kStride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out[0], kPanelStride);
  _tile_stored(1, out[0] + kTileRowsEach, kPanelStride);
  if constexpr (kBoth) {
    _tile_stored(2, out[kTileRowsEach], kPanelStride);
    _tile_stored(3, out[kTileRowsEach] + kTileRowsEach, kPanelStride);
  }
}

// The same with FMAs, a row at a time.
void leaf_by_fma(const uint32_t* x, int64_t x_block, int64_t rows, const LeafOfPanel& w,
                 float (*out)[32]) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int half = 0; half < 32; half += 16) {
      f32x16 leaf = zero();
      for (int64_t i = 0; i < w.blocks; ++i) {
        const uint32_t* a = x + i * x_block + row * kBlockPairs;
        const uint32_t* b = w.block(i) + half;
        f32x16 even = zero(), odd = zero();
        for (int64_t pair = 0; pair < kBlockPairs; ++pair) {
          const i32x16 inputs = splat_int(static_cast<int32_t>(a[pair]));
          const i32x16 weights = load_int(b + pair * 32), high = splat_int(-65536);
          even = fma(from_bits(inputs & high), from_bits(weights & high), even);
          odd = fma(from_bits(shift_left<16>(inputs)), from_bits(shift_left<16>(weights)), odd);
        }
        leaf = leaf + (even + odd);
      }
      store(out[row] + half, leaf);
    }
  }
}

void add_leaf(const float (*sums)[32], int64_t rows, float* totals, bool first) {
  for (int64_t at = 0; at < rows * 32; at += 16) {
    const f32x16 sum = load(&sums[0][0] + at);
    store(totals + at, first ? sum : load(totals + at) + sum);
  }
}

struct PairsOfPanel {
  static constexpr int64_t kPerWord = 2, kBytesPerWord = 128;
  static constexpr int64_t kHeaderBytes = kPairHeaderBytes, kWholeK = kPairWholeK;
};

void tiles(const RowTiles& x, const LinearOutput& to, int64_t panel, float*, float* totals) {
  const Tiles configured;
  const uint8_t* base = to.weight.data + panel * panel_bytes<PairsOfPanel>(to.weight.k);
  const int32_t w_exponent = read_exponent(base);
  const uint32_t* pairs = reinterpret_cast<const uint32_t*>(base + kPairHeaderBytes);
  const int64_t tile_words = packed_words(kRows, x.k1 - x.k0);
  alignas(64) float sums[kRows][32];
  for (int64_t k0 = x.k0; k0 < x.k1; k0 += kLeaf) {
    const LeafOfPanel w(pairs + k0 / 2 * 32, smaller(kLeaf, x.k1 - k0));
    const NextLeaf<PairsOfPanel> next(base, to.weight.k, x, k0, kRows);
    for (int64_t row = 0; row < x.rows; row += kRows) {
      next.fetch_part(row / kRows);
      const int64_t rows = smaller(kRows, x.rows - row);
      const bool both = rows > kTileRowsEach;
      const uint32_t* tile_start = x.words + row / kRows * tile_words;
      const int64_t x_block = (both ? kRows : kTileRowsEach) * kBlockPairs;
      const uint32_t* a = tile_start + kHeaderWords + blocks_of(k0 - x.k0) * x_block;
      if (read_exponent(tile_start) + w_exponent < kLeastExponentSum)
        leaf_by_fma(a, x_block, rows, w, sums);
      else if (both)
        leaf_tiles<true>(a, w, sums);
      else
        leaf_tiles<false>(a, w, sums);
      add_leaf(sums, rows, totals + row * 32, k0 == 0);
    }
  }
  finish_tiles(totals, x, to, panel);
}

}  // namespace

const LinearKernels& linear_kernels() {
  static const LinearKernels table = {kRows,   kFewRows, packed_words, pack_rows,
                                      nullptr, tiles,    nullptr};
  return table;
}

bool adds_in_order() {
  // Sums that cancel nearly, whose bits tell orders and roundings apart: of 16 rows by 32 outputs
  // and 64 k, by tiles and by FMAs.
  NumbersToTry bf16_bits;
  constexpr int64_t depth = 2 * kPairBlock;
  const Tiles configured;
  for (int round = 0; round < 16; ++round) {
    alignas(64) uint32_t x[2][kTileRowsEach][kBlockPairs], w[2][kBlockPairs][32];
    for (auto& row : x[0])
      for (uint32_t& word : row) word = bf16_bits() << 16 | bf16_bits();
    for (auto& row : w[0])
      for (uint32_t& word : row) word = bf16_bits() << 16 | bf16_bits();
    // Minus the first block, but for the last bit of some.
    for (int i = 0; i < kTileRowsEach; ++i)
      for (int j = 0; j < kBlockPairs; ++j) x[1][i][j] = x[0][i][j] ^ 0x80008000u;
    for (int i = 0; i < kBlockPairs; ++i)
      for (int j = 0; j < 32; ++j) w[1][i][j] = w[0][i][j] ^ (bf16_bits() & 1u);
    alignas(64) float tiled[kRows][32], chained[kRows][32];
    const LeafOfPanel leaf(&w[0][0][0], depth);
    leaf_tiles<false>(&x[0][0][0], leaf, tiled);
    leaf_by_fma(&x[0][0][0], kTileRowsEach * kBlockPairs, kTileRowsEach, leaf, chained);
    if (std::memcmp(tiled, chained, sizeof(float) * kTileRowsEach * 32) != 0) return false;
  }
  return true;
}

}  // namespace bitlens::amx
