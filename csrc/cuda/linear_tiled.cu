// linear of many rows: 128 rows by 64 outputs a thread block, 8 by 4 a thread, 16 k at a time from
// two buffers in shared memory. The next 16 are on their way in registers, widened there, while
// these are multiplied. The sums of an output are those of csrc/spec/linear.h: one chain a leaf of
// 256 k, or for bf16 activations two a block of 32.
#include "library.h"
#include "linear.h"

namespace bitlens::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 128, kColumns = 2 * kPanelColumns, kStep = 16;
constexpr int kThreadRows = 8, kThreadColumns = 4;
constexpr int kAcross = kColumns / kThreadColumns;  // threads along the outputs
constexpr int kFetched = kRows * kStep / kThreads;  // activations that a thread fetches a step
constexpr int kPadRows = kRows + 4, kPadColumns = kColumns + 4;

// What a thread fetches of the next step.
struct Fetched {
  float x[kFetched];
  float w[kFour];
};

struct Tile {
  float* x;  // [kStep][kPadRows]
  float* w;  // [kStep][kPadColumns]
};

template <typename R>
__device__ void fetch(const Linear& op, int64_t row0, int64_t k0, Fetched* next) {
  const int t = static_cast<int>(threadIdx.x);
  const int64_t row = row0 + t / 2, x_k = k0 + t % 2 * kFetched;
#pragma unroll
  for (int j = 0; j < kFetched; ++j)
    next->x[j] = row < op.m && x_k + j < op.k ? activation(op, row, x_k + j) : 0.0f;
  const int column = t % kColumns;
  const int64_t panel = static_cast<int64_t>(blockIdx.x) * 2 + column / kPanelColumns;
  const int64_t w_k = k0 + t / kColumns * kFour;
  const bool inside = panel * kPanelColumns < op.n && w_k < op.k;
#pragma unroll
  for (int j = 0; j < kFour; ++j) next->w[j] = 0.0f;
  if (!inside) return;
  const int count = static_cast<int>(op.k - w_k < kFour ? op.k - w_k : kFour);
  R::read(op.panels + panel * op.panel_bytes, column % kPanelColumns, w_k, count, next->w);
}

__device__ void put(const Fetched& next, const Tile& tile) {
  const int t = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < kFetched; ++j) tile.x[(t % 2 * kFetched + j) * kPadRows + t / 2] = next.x[j];
#pragma unroll
  for (int j = 0; j < kFour; ++j)
    tile.w[(t / kColumns * kFour + j) * kPadColumns + t % kColumns] = next.w[j];
}

// One number for every output of the thread.
using Sums = float[kThreadRows][kThreadColumns];

// One k of every output. Beyond k nothing is added: not even a product of zeros, which would make
// a sum of -0 one of +0.
__device__ inline void multiply(const Tile& tile, int kk, Sums& chain) {
  const int t = static_cast<int>(threadIdx.x);
  const float* x = tile.x + kk * kPadRows + t / kAcross * kThreadRows;
  const float* w = tile.w + kk * kPadColumns + t % kAcross * kThreadColumns;
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
__device__ inline void multiply_step(const Tile& tile, int depth, Sums (&chain)[kCount]) {
  for (int kk = 0; kk < depth; kk += kCount) {
#pragma unroll
    for (int c = 0; c < kCount; ++c)
      if (kk + c < depth) multiply(tile, kk + c, chain[c]);
  }
}

template <spec::Order kOrder>
__device__ inline void add_block(Sums (&chain)[kChains<kOrder>], Sums& leaf) {
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
    for (int j = 0; j < kThreadColumns; ++j) {
      leaf[i][j] = with_block<kOrder>(leaf[i][j], chain[0][i][j], chain[kChains<kOrder> - 1][i][j]);
#pragma unroll
      for (Sums& sums : chain) sums[i][j] = 0.0f;
    }
}

__device__ inline void add_leaf(bool first, Sums& leaf, Sums& total) {
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
    for (int j = 0; j < kThreadColumns; ++j) {
      total[i][j] = first ? leaf[i][j] : total[i][j] + leaf[i][j];
      leaf[i][j] = 0.0f;
    }
}

template <typename R, spec::Order kOrder>
__global__ void __launch_bounds__(kThreads) linear_tiled(Linear op) {
  BL_SHARED(float, x, 2 * kStep * kPadRows);
  BL_SHARED(float, w, 2 * kStep * kPadColumns);
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kRows;
  const int64_t steps = (op.k + kStep - 1) / kStep;
  constexpr int block_steps = kChainSpan<kOrder> / kStep, leaf_steps = spec::kLeaf / kStep;
  Sums chain[kChains<kOrder>] = {}, leaf = {}, total = {};
  Fetched next;
  fetch<R>(op, row0, 0, &next);
  for (int64_t s = 0; s < steps; ++s) {
    const int buffer = static_cast<int>(s % 2);
    const Tile tile = {x + buffer * kStep * kPadRows, w + buffer * kStep * kPadColumns};
    put(next, tile);
    __syncthreads();  // the one barrier a step: the buffer before was read before the last one
    if (s + 1 < steps) fetch<R>(op, row0, (s + 1) * kStep, &next);
    const int64_t left = op.k - s * kStep;
    const int depth = static_cast<int>(left < kStep ? left : kStep);
    multiply_step(tile, depth, chain);
    const bool last = s + 1 == steps;
    if ((s + 1) % block_steps == 0 || last) add_block<kOrder>(chain, leaf);
    if ((s + 1) % leaf_steps == 0 || last) add_leaf(s < leaf_steps, leaf, total);
  }
  const int t = static_cast<int>(threadIdx.x);
  const int64_t row = row0 + t / kAcross * kThreadRows;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + t % kAcross * kThreadColumns;
  for (int i = 0; i < kThreadRows; ++i)
    for (int j = 0; j < kThreadColumns; ++j)
      if (row + i < op.m && column + j < op.n) finish(op, row + i, column + j, total[i][j]);
}

}  // namespace

int launch_tiled(int format, const Linear& op, void* stream) {
  auto* kernel = with_order(op, [&](auto order) {
    return with_format(
        format, [](auto reader) { return linear_tiled<decltype(reader), decltype(order)::order>; });
  });
  const dim3 grid(static_cast<unsigned>((op.n + kColumns - 1) / kColumns),
                  static_cast<unsigned>((op.m + kRows - 1) / kRows));
  return launch(Kernel::LINEAR_TILED, kernel, grid, kThreads, 0, stream, op);
}

}  // namespace bitlens::cuda

using namespace bitlens::cuda;

// Rows up to which reading weights takes longer than multiplying by them.
constexpr int64_t kFewRows = 8;

int blc_linear(const void* x, int x_dtype, int64_t m, int64_t k, int64_t x_stride,
               const uint8_t* panels, int format, int64_t n, const float* bias, void* out,
               int out_dtype, int64_t out_stride, void* stream) {
  const Linear op = {
      x, x_dtype, m,   k,         x_stride,  panels, panel_bytes(static_cast<Format>(format), k),
      n, bias,    out, out_dtype, out_stride};
  return m <= kFewRows ? launch_few_rows(format, op, stream) : launch_tiled(format, op, stream);
}
