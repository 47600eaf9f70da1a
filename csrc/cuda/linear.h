// What both kernels of `linear` are given.
#pragma once

#include "../spec/linear.h"
#include "panels.h"
#include "rows.h"

namespace bitlens::cuda {

// y [m, n] = x [m, k] times a packed weight [n, k] plus bias; strides in elements.
struct Linear {
  const void* x;
  int x_dtype;
  int64_t m, k, x_stride;
  const uint8_t* panels;
  int64_t panel_bytes, n;
  const float* bias;
  void* out;
  int out_dtype;
  int64_t out_stride;
};

__device__ inline float activation(const Linear& op, int64_t row, int64_t k) {
  const int64_t at = row * op.x_stride + k;
  return op.x_dtype == kF32 ? static_cast<const float*>(op.x)[at]
                            : spec::widen_bf16(static_cast<const uint16_t*>(op.x)[at]);
}

// kernel<Order> of the activations' dtype, which decides the order (csrc/spec/linear.h).
template <spec::Order kOrder>
struct OrderTag {
  static constexpr spec::Order order = kOrder;
};

template <typename Choose>
auto with_order(const Linear& op, Choose choose) {
  return op.x_dtype == kF32 ? choose(OrderTag<spec::Order::kChain>())
                            : choose(OrderTag<spec::Order::kPairs>());
}

// Chains that a sum goes on in at the same time, and k until they are added to the leaf.
template <spec::Order kOrder>
constexpr int kChains = kOrder == spec::Order::kPairs ? 2 : 1;
template <spec::Order kOrder>
constexpr int kChainSpan = kOrder == spec::Order::kPairs ? spec::kPairBlock : spec::kLeaf;

// A leaf's sum after its next block. A leaf of one chain is that block.
template <spec::Order kOrder>
__device__ inline float with_block(float leaf, float first, float second) {
  return kOrder == spec::Order::kPairs ? leaf + (first + second) : first;
}

// The bias, one rounding, and where the output goes.
__device__ inline void finish(const Linear& op, int64_t row, int64_t column, float total) {
  if (op.bias != nullptr) total = total + op.bias[column];
  const int64_t at = row * op.out_stride + column;
  if (op.out_dtype == kF32)
    static_cast<float*>(op.out)[at] = total;
  else
    static_cast<uint16_t*>(op.out)[at] = spec::round_bf16(total);
}

int launch_few_rows(int format, const Linear& op, void* stream);
int launch_tiled(int format, const Linear& op, void* stream);

}  // namespace bitlens::cuda
