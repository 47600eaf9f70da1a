// linear: y[n] = round_out(sum_k x[k] * w[n, k] + bias[n]).
//
// k is cut into leaves of 256. Leaf sums are added in ascending order (total = leaf_0, total =
// total + leaf_i); then the bias; one rounding. Within a leaf, the dtype of x decides:
//   fp32   one FMA chain from +0 in ascending k
//   bf16   blocks of 32 k, whose sums are added from +0 in ascending order. In a block two FMA
//          chains from +0, over its even and over its odd k; the block's sum is even + odd.
// The second is what tile units and dot-product instructions do with bf16 (docs/numerics.md).
#pragma once

#include "formats.h"
#include "reductions.h"

namespace bitlens::spec {

constexpr int kLeaf = 256;
constexpr int kPairBlock = 32;

enum class Order : int { kChain = 0, kPairs = 1 };

BL_FN float leaf_chain(const float* x, const float* w, int64_t n) {
  float acc = 0.0f;
  for (int64_t i = 0; i < n; ++i) acc = fma32(x[i], w[i], acc);
  return acc;
}

BL_FN float leaf_pairs(const float* x, const float* w, int64_t n) {
  float leaf = 0.0f;
  for (int64_t start = 0; start < n; start += kPairBlock) {
    float chain[2] = {0.0f, 0.0f};
    for (int64_t i = start; i < block_end(start, n, kPairBlock); ++i)
      chain[i % 2] = fma32(x[i], w[i], chain[i % 2]);
    leaf = leaf + (chain[0] + chain[1]);
  }
  return leaf;
}

// The leaf length is a parameter only so that tests can show another one moves the bits.
BL_FN float dot_in_leaves(const float* x, const float* w, int64_t k, int leaf, Order order) {
  float total = 0.0f;
  for (int64_t start = 0; start < k; start += leaf) {
    const int64_t n = block_end(start, k, leaf) - start;
    const float sum = order == Order::kPairs ? leaf_pairs(x + start, w + start, n)
                                             : leaf_chain(x + start, w + start, n);
    total = start == 0 ? sum : total + sum;
  }
  return total;
}

// The product of fp32 numbers, in their order.
BL_FN float dot(const float* x, const float* w, int64_t k) {
  return dot_in_leaves(x, w, k, kLeaf, Order::kChain);
}

// One output; x and w are widened to fp32, bias may be null.
BL_FN float linear(const float* x, const float* w, int64_t k, const float* bias, Order order,
                   Format out) {
  float y = dot_in_leaves(x, w, k, kLeaf, order);
  if (bias != nullptr) y = y + *bias;
  return round_act(y, out);
}

}  // namespace bitlens::spec
