#include "weight_gradients.h"

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "row_ranges.h"
#include "scratch.h"

namespace bitlens {
namespace {

constexpr int64_t kLeafPositions = 256;
constexpr int64_t kTaskTiles = 8;  // tiles of outputs that meet a panel of inputs in turn

struct Leaf {
  int64_t begin, rows;
};

std::vector<Leaf> leaves_of(const SequenceStarts& sequences) {
  std::vector<Leaf> leaves;
  for (int64_t i = 0; i < sequences.count; ++i) {
    const int64_t end = sequences.starts[i + 1];
    for (int64_t begin = sequences.starts[i]; begin < end; begin += kLeafPositions)
      leaves.push_back({begin, std::min(kLeafPositions, end - begin)});
  }
  return leaves;
}

int64_t tiles_of(int64_t width, int64_t tile) { return (width + tile - 1) / tile; }

// Every leaf's columns in tiles: leaf by leaf, tile by tile, [rows of the leaf, tile].
void pack_tile(const TrainingKernels& k, const GradientRows& x, const Leaf& leaf, int64_t tile,
               int64_t index, float* out) {
  const int64_t begin = index * tile;
  k.gather(at(x.data, leaf.begin * x.width, x.dtype), x.dtype, leaf.rows, x.width, begin,
           std::min(tile, x.width - begin), tile, out);
}

// Outputs [first, last) of the matrix, in tiles, against all packed panels of inputs.
void add_outputs(const TrainingKernels& k, const GradientRows& dy, int64_t columns,
                 const std::vector<Leaf>& leaves, const float* panels, int64_t first, int64_t last,
                 float* sums) {
  thread_local Scratch scratch;
  const int64_t tiles = tiles_of(last - first, k.tile_rows);
  const int64_t width = k.tile_columns, n_panels = tiles_of(columns, width);
  float* packed = scratch.floats(kLeafPositions * tiles * k.tile_rows);
  const float* x = panels;
  for (const Leaf& leaf : leaves) {
    const int64_t words = leaf.rows * k.tile_rows;
    for (int64_t tile = 0; tile < tiles; ++tile)
      pack_tile(k, dy, leaf, k.tile_rows, first / k.tile_rows + tile, packed + tile * words);
    for (int64_t panel = 0; panel < n_panels; ++panel, x += leaf.rows * width) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = first + tile * k.tile_rows;
        k.add_tile(packed + tile * words, x, leaf.rows, std::min(k.tile_rows, last - row),
                   std::min(width, columns - panel * width), sums + row * columns + panel * width,
                   columns);
      }
    }
  }
}

}  // namespace

void linear_weight_grad(const GradientRows& dy, const GradientRows& x,
                        const SequenceStarts& sequences, float* sums) {
  const FloatEnvironment environment;
  const TrainingKernels& k = kernels().training;
  const std::vector<Leaf> leaves = leaves_of(sequences);
  const int64_t panels = tiles_of(x.width, k.tile_columns), each = panels * k.tile_columns;
  thread_local Scratch scratch;
  int64_t rows = 0;
  for (const Leaf& leaf : leaves) rows += leaf.rows;
  float* packed = scratch.floats(rows * each);
  std::vector<float*> places;
  for (float* place = packed; const Leaf& leaf : leaves) {
    places.push_back(place);
    place += leaf.rows * each;
  }
  parallel_for(static_cast<int64_t>(leaves.size()) * panels, [&](int64_t i) {
    const auto index = static_cast<size_t>(i / panels);
    const int64_t panel = i % panels;
    pack_tile(k, x, leaves[index], k.tile_columns, panel,
              places[index] + panel * leaves[index].rows * k.tile_columns);
  });
  const int64_t step = kTaskTiles * k.tile_rows;
  parallel_for(tiles_of(dy.width, step), [&](int64_t i) {
    add_outputs(k, dy, x.width, leaves, packed, i * step, std::min(dy.width, (i + 1) * step), sums);
  });
}

void bias_grad(const GradientRows& dy, const SequenceStarts& sequences, float* sums) {
  const TrainingKernels& k = kernels().training;
  for (const Leaf& leaf : leaves_of(sequences)) {
    const GradientLeaf rows = {at(dy.data, leaf.begin * dy.width, dy.dtype), dy.dtype, leaf.rows,
                               dy.width};
    for_ranges(dy.width, leaf.rows, 64,
               [&](int64_t begin, int64_t end) { k.add_rows(rows, begin, end, sums); });
  }
}

void norm_weight_grad(const GradientRows& dy, const float* normalized, int64_t heads,
                      const SequenceStarts& sequences, float* sums) {
  const TrainingKernels& k = kernels().training;
  for (const Leaf& leaf : leaves_of(sequences)) {
    const int64_t first = leaf.begin * heads * dy.width;
    const GradientLeaf rows = {at(dy.data, first, dy.dtype), dy.dtype, leaf.rows * heads, dy.width};
    for_ranges(dy.width, rows.rows, 64, [&](int64_t begin, int64_t end) {
      k.add_products(rows, normalized + first, begin, end, sums);
    });
  }
}

void embed_grad(const float* dresid, int64_t d, const int64_t* tokens, float scale,
                const SequenceStarts& sequences, float* sums) {
  const TrainingKernels& k = kernels().training;
  for (const Leaf& leaf : leaves_of(sequences)) {
    // Rows of one token follow each other, ascending.
    const int64_t* of_leaf = tokens + leaf.begin;
    std::vector<int32_t> order(static_cast<size_t>(leaf.rows));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return of_leaf[a] < of_leaf[b]; });
    std::vector<int64_t> runs = {0};
    for (int64_t i = 1; i < leaf.rows; ++i)
      if (of_leaf[order[static_cast<size_t>(i)]] != of_leaf[order[static_cast<size_t>(i - 1)]])
        runs.push_back(i);
    runs.push_back(leaf.rows);
    for_rows(static_cast<int64_t>(runs.size()) - 1, d, [&](int64_t begin, int64_t end) {
      for (auto run = static_cast<size_t>(begin); run < static_cast<size_t>(end); ++run) {
        const int32_t* rows = order.data() + runs[run];
        k.add_scaled(dresid + leaf.begin * d, rows, runs[run + 1] - runs[run], scale, d,
                     sums + of_leaf[rows[0]] * d);
      }
    });
  }
}

}  // namespace bitlens
