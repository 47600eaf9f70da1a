// linear of few rows, as in decoding: weights are read once, at the speed of memory. A thread block
// has one panel of 32 outputs, a lane an output, and its warps share out the leaves of 256 k; their
// sums are added in ascending order (csrc/spec/linear.h).
#include "library.h"
#include "linear.h"

namespace bitlens::cuda {
namespace {

constexpr int kWarps = 8, kLaneCount = 32;

// k begin .. end of kRows rows; rows beyond the last repeat it and are not stored.
template <typename R, spec::Order kOrder, int kRows>
__device__ void chain_sums(const Linear& op, const uint8_t* panel, int64_t row0, int64_t begin,
                           int64_t end, float (&chain)[kChains<kOrder>][kRows]) {
  const int lane = static_cast<int>(threadIdx.x) % kLaneCount;
  for (int64_t k = begin; k < end; k += kFour) {
    const int count = static_cast<int>(end - k < kFour ? end - k : kFour);
    float w[kFour];
    R::read(panel, lane, k, count, w);
#pragma unroll
    for (int j = 0; j < kFour; ++j) {
      if (j >= count) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int64_t row = row0 + r < op.m ? row0 + r : op.m - 1;
        float& sum = chain[j % kChains<kOrder>][r];
        sum = spec::fma32(activation(op, row, k + j), w[j], sum);
      }
    }
  }
}

// The leaf from k on.
template <typename R, spec::Order kOrder, int kRows>
__device__ void leaf_sums(const Linear& op, const uint8_t* panel, int64_t row0, int64_t begin,
                          float (&leaf)[kRows]) {
  constexpr int last = kChains<kOrder> - 1;
  const int64_t end = spec::block_end(begin, op.k, spec::kLeaf);
  for (int64_t k = begin; k < end; k += kChainSpan<kOrder>) {
    float chain[kChains<kOrder>][kRows] = {};
    chain_sums<R, kOrder, kRows>(op, panel, row0, k, spec::block_end(k, end, kChainSpan<kOrder>),
                                 chain);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      leaf[r] = with_block<kOrder>(leaf[r], chain[0][r], chain[last][r]);
  }
}

template <typename R, spec::Order kOrder, int kRows>
__global__ void __launch_bounds__(kWarps* kLaneCount, 3) linear_few_rows(Linear op) {
  BL_SHARED(float, sums, kWarps * kRows * kLaneCount);
  const int lane = static_cast<int>(threadIdx.x) % kLaneCount;
  const int warp = static_cast<int>(threadIdx.x) / kLaneCount;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kRows;
  const uint8_t* panel = op.panels + blockIdx.x * op.panel_bytes;
  float total[kRows] = {};
  for (int64_t base = 0; base < op.k; base += kWarps * spec::kLeaf) {
    const int64_t begin = base + warp * spec::kLeaf;
    float acc[kRows] = {};
    if (begin < op.k) leaf_sums<R, kOrder, kRows>(op, panel, row0, begin, acc);
    for (int r = 0; r < kRows; ++r) sums[(warp * kRows + r) * kLaneCount + lane] = acc[r];
    __syncthreads();
    for (int w = 0; w < kWarps && base + w * spec::kLeaf < op.k; ++w)
      for (int r = 0; r < kRows; ++r) {
        const float leaf = sums[(w * kRows + r) * kLaneCount + lane];
        total[r] = base == 0 && w == 0 ? leaf : total[r] + leaf;
      }
    __syncthreads();
  }
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kPanelColumns + lane;
  if (warp != 0 || column >= op.n) return;
  for (int r = 0; r < kRows; ++r)
    if (row0 + r < op.m) finish(op, row0 + r, column, total[r]);
}

template <int kRows>
int launch_rows(int format, const Linear& op, void* stream) {
  auto* kernel = with_order(op, [&](auto order) {
    return with_format(format, [](auto reader) {
      return linear_few_rows<decltype(reader), decltype(order)::order, kRows>;
    });
  });
  const dim3 grid(static_cast<unsigned>((op.n + kPanelColumns - 1) / kPanelColumns),
                  static_cast<unsigned>((op.m + kRows - 1) / kRows));
  return launch(Kernel::LINEAR_FEW_ROWS, kernel, grid, kWarps * kLaneCount, 0, stream, op);
}

}  // namespace

int launch_few_rows(int format, const Linear& op, void* stream) {
  return op.m == 1 ? launch_rows<1>(format, op, stream) : launch_rows<4>(format, op, stream);
}

}  // namespace bitlens::cuda
