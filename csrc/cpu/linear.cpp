#include "linear.h"

#include <algorithm>
#include <atomic>

#include "bf16_products.h"
#include "float_environment.h"
#include "kernels.h"
#include "scratch.h"
#include "threads.h"

namespace bitlens {
namespace {

// Activations of one row block stay in the second-level cache while panels stream past them.
constexpr int64_t kRowBlockBytes = 512 * 1024;
constexpr int64_t kRowBlockRows = 192, kFewRows = 72;
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

// x [m, depth] with a stride in elements.
struct Activations {
  const void* data;
  DType dtype;
  int64_t m, depth, stride;

  const void* at(int64_t row, int64_t k) const {
    const int64_t bytes = (row * stride + k) * static_cast<int64_t>(dtype_bytes(dtype));
    return static_cast<const uint8_t*>(data) + bytes;
  }
};

// Packed activations, a copy for every thread that works on them: fetching from another core's
// cache what that core has just packed takes longer than packing it.
class PackedByThread {
 public:
  PackedByThread() {
    static std::atomic<uint64_t> count{0};
    number_ = ++count;
  }

  // pack(words) fills them, on a thread's first call.
  template <typename Pack>
  const uint32_t* words(int64_t count, Pack&& pack) const {
    thread_local Scratch scratch;
    thread_local uint64_t held = 0;  // the number of what is in it
    uint32_t* words = scratch.words(count);
    if (held != number_) pack(words);
    held = number_;
    return words;
  }

 private:
  uint64_t number_;
};

void few_rows(const LinearKernels& k, const Activations& x, const LinearOutput* outputs,
              int count) {
  const PackedByThread packed;
  const auto pack = [&](uint32_t* words) {
    k.pack_rows(x.data, x.dtype, x.m, x.depth, x.stride, words);
  };
  // Enough ranges to even out threads of unequal speed, each long enough to stream.
  const int64_t fine = panels_of(outputs, count) / kRangePanels;
  const int64_t tasks = std::max<int64_t>(fine, 2 * num_threads());
  for_each_range(outputs, count, tasks,
                 [&](const LinearOutput& to, int64_t panel, int64_t n, int64_t) {
                   const int64_t size = k.packed_words(x.m, x.depth);
                   k.direct(packed.words(size, pack), x.m, to, panel, n);
                 });
}

// Rows and depth of a block of activations. All of the depth where enough rows of it fit; else
// whole leaves of it, so that a panel read from memory still meets many rows.
struct BlockShape {
  int64_t rows, depth;
};

BlockShape block_shape(const LinearKernels& k, int64_t depth) {
  const int64_t words = kRowBlockBytes / 4;
  const int64_t tiles = words / std::max<int64_t>(k.packed_words(k.tile_rows, depth), 1);
  const int64_t fitting = std::min(tiles * k.tile_rows, kRowBlockRows);
  if (fitting >= kFewRows)
    return {fitting / k.tile_rows * k.tile_rows, std::max<int64_t>(depth, 1)};
  const int64_t rows = kRowBlockRows / k.tile_rows * k.tile_rows;
  return {rows, std::max<int64_t>(words / k.packed_words(rows, kLeaf), 1) * kLeaf};
}

// The block of x from row0 and k0 on, in tiles.
class TiledBlock {
 public:
  TiledBlock(const LinearKernels& k, const Activations& x, const BlockShape& shape, int64_t row0,
             int64_t k0)
      : k_(k),
        x_(x),
        rows_(std::min(shape.rows, x.m - row0)),
        row0_(row0),
        k0_(k0),
        depth_(std::min(shape.depth, x.depth - k0)) {}

  RowTiles tiles() const {
    const int64_t tile_words = k_.packed_words(k_.tile_rows, depth_);
    const int64_t count = (rows_ + k_.tile_rows - 1) / k_.tile_rows;
    const auto pack = [&](uint32_t* words) {
      for (int64_t row = 0; row < rows_; row += k_.tile_rows, words += tile_words)
        k_.pack_rows(x_.at(row0_ + row, k0_), x_.dtype, std::min(k_.tile_rows, rows_ - row), depth_,
                     x_.stride, words);
    };
    return {packed_.words(count * tile_words, pack),
            rows_,
            row0_,
            x_.m,
            k0_,
            k0_ + depth_,
            num_threads()};
  }

 private:
  const LinearKernels& k_;
  const Activations& x_;
  const int64_t rows_, row0_, k0_, depth_;
  const PackedByThread packed_;
};

void many_rows(const LinearKernels& k, const Activations& x, const LinearOutput* outputs,
               int count) {
  const BlockShape shape = block_shape(k, x.depth);
  const int64_t panels = panels_of(outputs, count);
  const int64_t panel_sums = std::min(x.m, shape.rows) * kPanelColumns;
  // Sums of a panel wait here while other panels meet the same leaves.
  thread_local Scratch unfinished;
  float* sums = shape.depth < x.depth ? unfinished.floats(panels * panel_sums) : nullptr;
  for (int64_t row0 = 0; row0 < x.m; row0 += shape.rows) {
    for (int64_t k0 = 0; k0 == 0 || k0 < x.depth; k0 += shape.depth) {
      const TiledBlock block(k, x, shape, row0, k0);
      for_each_range(outputs, count, panels,
                     [&](const LinearOutput& to, int64_t panel, int64_t, int64_t before) {
                       thread_local Scratch leaf, totals;
                       float* total =
                           sums ? sums + (before + panel) * panel_sums : totals.floats(panel_sums);
                       k.tiles(block.tiles(), to, panel, leaf.floats(kLeaf * kPanelColumns), total);
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
  const Activations activations = {x, dtype, m, k, stride};
  const bool all_bf16 =
      dtype == DType::BF16 && std::all_of(outputs, outputs + count, [](const LinearOutput& to) {
        return to.weight.format == Format::BF16;
      });
  const LinearKernels& fma = dtype == DType::BF16 ? kernels().linear_bf16 : kernels().linear;
  const LinearKernels& many = all_bf16 ? many_bf16_rows() : fma;
  if (m > many.direct_rows) return many_rows(many, activations, outputs, count);
  few_rows(all_bf16 ? few_bf16_rows() : fma, activations, outputs, count);
}

}  // namespace bitlens
