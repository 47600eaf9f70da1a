// The product of a tile of rows by 64 outputs of a packed weight, by the 256 threads of a block: 4
// outputs of some rows a thread, 16 k at a time from two buffers in shared memory. The next 16 are
// on their way in registers, widened there, while these are multiplied. The sums of an output are
// those of csrc/spec/linear.h: one chain a leaf of 256 k, or for bf16 activations two a block
// of 32.
#pragma once

#include "linear.h"

namespace bitlens::cuda {

constexpr int kTileThreads = 256, kTileStep = 16;
constexpr int kTileColumns = 2 * kPanelColumns, kThreadColumns = 4;
constexpr int kAcross = kTileColumns / kThreadColumns;  // threads along the outputs
constexpr int kPadColumns = kTileColumns + 4;

// A tile of which each thread has kThreadRows rows.
template <int kThreadRows>
struct Tile {
  static constexpr int rows = kTileThreads / kAcross * kThreadRows, pad_rows = rows + 4;
  static constexpr int fetchers = kTileThreads / rows;       // threads that fetch a row's step
  static constexpr int fetched = kTileStep / fetchers;       // activations that each fetches
  static constexpr int x_floats = 2 * kTileStep * pad_rows;  // of shared memory
  static constexpr int w_floats = 2 * kTileStep * kPadColumns;

  // One number for every output of the thread.
  using Sums = float[kThreadRows][kThreadColumns];

  // What a thread fetches of the next step.
  struct Fetched {
    float x[fetched];
    float w[kFour];
  };

  template <typename R>
  static __device__ void fetch(const Linear& op, int64_t row0, int64_t tile, int64_t k0,
                               Fetched* next) {
    const int t = static_cast<int>(threadIdx.x);
    const int64_t row = row0 + t / fetchers, x_k = k0 + t % fetchers * fetched;
#pragma unroll
    for (int j = 0; j < fetched; ++j)
      next->x[j] = row < op.m && x_k + j < op.k ? activation(op, row, x_k + j) : 0.0f;
    const int column = t % kTileColumns;
    const int64_t panel = tile * 2 + column / kPanelColumns;
    const int64_t w_k = k0 + t / kTileColumns * kFour;
    const bool inside = panel * kPanelColumns < op.n && w_k < op.k;
#pragma unroll
    for (int j = 0; j < kFour; ++j) next->w[j] = 0.0f;
    if (!inside) return;
    const int count = static_cast<int>(op.k - w_k < kFour ? op.k - w_k : kFour);
    R::read(op.panels + panel * op.panel_bytes, column % kPanelColumns, w_k, count, next->w);
  }

  static __device__ void put(const Fetched& next, float* x, float* w) {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int j = 0; j < fetched; ++j)
      x[(t % fetchers * fetched + j) * pad_rows + t / fetchers] = next.x[j];
#pragma unroll
    for (int j = 0; j < kFour; ++j)
      w[(t / kTileColumns * kFour + j) * kPadColumns + t % kTileColumns] = next.w[j];
  }

  // One k of every output. Beyond k nothing is added: not even a product of zeros, which would
  // make a sum of -0 one of +0.
  static __device__ inline void multiply(const float* x, const float* w, Sums& chain) {
    const int t = static_cast<int>(threadIdx.x);
    x += t / kAcross * kThreadRows, w += t % kAcross * kThreadColumns;
    float xs[kThreadRows], ws[kThreadColumns];
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) xs[i] = x[i];
#pragma unroll
    for (int j = 0; j < kThreadColumns; ++j) ws[j] = w[j];
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
      for (int j = 0; j < kThreadColumns; ++j) chain[i][j] = spec::fma32(xs[i], ws[j], chain[i][j]);
  }

  // The depth of a step; with two chains they take k in turns.
  template <int kCount>
  static __device__ inline void multiply_step(const float* x, const float* w, int depth,
                                              Sums (&chain)[kCount]) {
    for (int kk = 0; kk < depth; kk += kCount) {
#pragma unroll
      for (int c = 0; c < kCount; ++c)
        if (kk + c < depth) multiply(x + (kk + c) * pad_rows, w + (kk + c) * kPadColumns, chain[c]);
    }
  }

  template <spec::Order kOrder>
  static __device__ inline void add_block(Sums (&chain)[kChains<kOrder>], Sums& leaf) {
    constexpr int last = kChains<kOrder> - 1;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
      for (int j = 0; j < kThreadColumns; ++j) {
        leaf[i][j] = with_block<kOrder>(leaf[i][j], chain[0][i][j], chain[last][i][j]);
#pragma unroll
        for (Sums& sums : chain) sums[i][j] = 0.0f;
      }
  }

  static __device__ inline void add_leaf(bool first, Sums& leaf, Sums& total) {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
      for (int j = 0; j < kThreadColumns; ++j) {
        total[i][j] = first ? leaf[i][j] : total[i][j] + leaf[i][j];
        leaf[i][j] = 0.0f;
      }
  }

  // The sums of this thread's outputs, from row0 and from tile * 64 on; x and w are shared memory.
  // Between two tiles the caller has a barrier.
  template <typename R, spec::Order kOrder>
  static __device__ inline void product(const Linear& op, int64_t row0, int64_t tile, float* x,
                                        float* w, Sums& total) {
    const int64_t steps = (op.k + kTileStep - 1) / kTileStep;
    constexpr int block_steps = kChainSpan<kOrder> / kTileStep;
    constexpr int leaf_steps = spec::kLeaf / kTileStep;
    Sums chain[kChains<kOrder>] = {}, leaf = {};
    Fetched next;
    fetch<R>(op, row0, tile, 0, &next);
    for (int64_t s = 0; s < steps; ++s) {
      const int buffer = static_cast<int>(s % 2);
      float *x_now = x + buffer * kTileStep * pad_rows,
            *w_now = w + buffer * kTileStep * kPadColumns;
      put(next, x_now, w_now);
      __syncthreads();  // the one barrier a step: the buffer before was read before the last one
      if (s + 1 < steps) fetch<R>(op, row0, tile, (s + 1) * kTileStep, &next);
      const int64_t left = op.k - s * kTileStep;
      const int depth = static_cast<int>(left < kTileStep ? left : kTileStep);
      multiply_step(x_now, w_now, depth, chain);
      const bool last = s + 1 == steps;
      if ((s + 1) % block_steps == 0 || last) add_block<kOrder>(chain, leaf);
      if ((s + 1) % leaf_steps == 0 || last) add_leaf(s < leaf_steps, leaf, total);
    }
  }

  // put(row, column, sum) for every output of the thread, counted from the tile's first one.
  template <typename Put>
  static __device__ inline void for_outputs(const Sums& total, Put put) {
    const int t = static_cast<int>(threadIdx.x);
    for (int i = 0; i < kThreadRows; ++i)
      for (int j = 0; j < kThreadColumns; ++j)
        put(t / kAcross * kThreadRows + i, t % kAcross * kThreadColumns + j, total[i][j]);
  }
};

}  // namespace bitlens::cuda
