#include "linear.h"

#include <algorithm>

#include "float_environment.h"
#include "kernels.h"
#include "scratch.h"
#include "threads.h"

namespace bitlens {
namespace {

// Activations of one row block stay in the second-level cache while panels stream past them.
constexpr int64_t kRowBlockBytes = 512 * 1024;
constexpr int64_t kRowBlockTiles = 16, kFewTiles = 6;
constexpr int64_t kRangePanels = 32;

int64_t panels_of(const PackedMatrix& weight) {
  return (weight.n + kPanelColumns - 1) / kPanelColumns;
}

int64_t panels_of(const LinearOutput* outputs, int count) {
  int64_t total = 0;
  for (int i = 0; i < count; ++i) total += panels_of(outputs[i].weight);
  return total;
}

// Splits the panels of all outputs into `tasks` even ranges and calls body(output, first panel,
// count, panels of the outputs before) for the part of a range that lies in an output, in parallel.
template <typename Body>
void for_each_range(const LinearOutput* outputs, int count, int64_t tasks, Body&& body) {
  const int64_t total = panels_of(outputs, count);
  parallel_for(tasks, [&](int64_t task) {
    int64_t first = total * task / tasks, left = total * (task + 1) / tasks - first;
    int64_t before = 0;
    for (int i = 0; left > 0; ++i) {
      const int64_t panels = panels_of(outputs[i].weight);
      const int64_t n = std::clamp<int64_t>(panels - first, 0, left);
      if (n > 0) body(outputs[i], first, n, before);
      before += panels;
      first = std::max<int64_t>(first - panels, 0);
      left -= n;
    }
  });
}

void few_rows(const LinearKernels& k, const void* x, DType dtype, int64_t m, int64_t depth,
              int64_t stride, const LinearOutput* outputs, int count) {
  thread_local Scratch scratch;
  uint32_t* packed = scratch.words(k.packed_words(m, depth));
  k.pack_rows(x, dtype, m, depth, stride, packed);
  // Enough ranges to even out threads of unequal speed, each long enough to stream.
  const int64_t fine = panels_of(outputs, count) / kRangePanels;
  const int64_t tasks = std::max<int64_t>(fine, 2 * num_threads());
  for_each_range(outputs, count, tasks,
                 [&](const LinearOutput& to, int64_t panel, int64_t n, int64_t) {
                   k.direct(packed, m, to, panel, n);
                 });
}

// Rows and depth of a block of activations. All of the depth where enough rows of it fit; else
// whole leaves of it, so that a panel read from memory still meets many rows.
struct BlockShape {
  int64_t rows, depth;
};

BlockShape block_shape(const LinearKernels& k, int64_t depth) {
  const int64_t words = kRowBlockBytes / 4;
  const int64_t fitting = words / std::max<int64_t>(k.packed_words(k.tile_rows, depth), 1);
  if (fitting >= kFewTiles) return {std::min(fitting, kRowBlockTiles) * k.tile_rows, depth};
  const int64_t rows = kRowBlockTiles * k.tile_rows;
  return {rows, std::max<int64_t>(words / k.packed_words(rows, kLeaf), 1) * kLeaf};
}

void many_rows(const LinearKernels& k, const void* x, DType dtype, int64_t m, int64_t depth,
               int64_t stride, const LinearOutput* outputs, int count) {
  const int64_t tile = k.tile_rows;
  const BlockShape block = block_shape(k, depth);
  const int64_t panels = panels_of(outputs, count), all_rows = std::min(m, block.rows);
  thread_local Scratch packed, unfinished;
  const int64_t all_tiles = (all_rows + tile - 1) / tile;
  uint32_t* tiles = packed.words(all_tiles * k.packed_words(tile, std::min(depth, block.depth)));
  // Sums of a panel wait here while other panels meet the same leaves.
  float* sums =
      block.depth < depth ? unfinished.floats(panels * all_rows * kPanelColumns) : nullptr;
  for (int64_t row0 = 0; row0 < m; row0 += block.rows) {
    const int64_t rows = std::min(block.rows, m - row0);
    for (int64_t k0 = 0; k0 == 0 || k0 < depth; k0 += block.depth) {
      const int64_t part = std::min(block.depth, depth - k0);
      parallel_for((rows + tile - 1) / tile, [&](int64_t i) {
        const int64_t row = row0 + i * tile;
        const size_t offset = static_cast<size_t>(row * stride + k0) * dtype_bytes(dtype);
        k.pack_rows(static_cast<const uint8_t*>(x) + offset, dtype, std::min(tile, rows - i * tile),
                    part, stride, tiles + i * k.packed_words(tile, part));
      });
      const RowTiles packed_rows = {tiles, rows, row0, m, k0, k0 + part};
      for_each_range(outputs, count, panels,
                     [&](const LinearOutput& to, int64_t panel, int64_t, int64_t before) {
                       thread_local Scratch leaf, totals;
                       float* total = sums ? sums + (before + panel) * all_rows * kPanelColumns
                                           : totals.floats(rows * kPanelColumns);
                       k.tiles(packed_rows, to, panel, leaf.floats(kLeaf * kPanelColumns), total);
                     });
    }
  }
}

}  // namespace

void unpack_rows(const PackedMatrix& weight, int64_t row0, int64_t rows, float* out) {
  const FloatEnvironment environment;
  const LinearKernels& k = kernels().linear;
  parallel_for(rows, [&](int64_t i) { k.weight_row(weight, row0 + i, out + i * weight.k); });
}

void linear(const void* x, DType dtype, int64_t m, int64_t k, int64_t stride,
            const LinearOutput* outputs, int count) {
  if (m == 0) return;
  const FloatEnvironment environment;
  const bool all_bf16 =
      dtype == DType::BF16 && std::all_of(outputs, outputs + count, [](const LinearOutput& to) {
        return to.weight.format == Format::BF16;
      });
  const LinearKernels& table = all_bf16 ? kernels().linear_bf16 : kernels().linear;
  (m <= table.direct_rows ? few_rows : many_rows)(table, x, dtype, m, k, stride, outputs, count);
}

}  // namespace bitlens
