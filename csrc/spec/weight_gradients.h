// Gradients of weights: sums over the positions of a batch, which go on from what is there.
//
// A sequence's positions are cut into leaves of 256, counted from its first one. A leaf is one
// chain from +0 over its positions in ascending order; leaf sums are added to the total, which
// begins as +0, sequence by sequence, in ascending order. A batch cut between sequences, its parts
// one after the other, so has the bits of the whole.
//
//   linear      dW[n, k] : acc = fma(dy[t, n], x[t, k], acc)
//   bias        db[n]    : acc = acc + dy[t, n]
//   norm        dw[d]    : acc = fma(dy[t, d], normalized[t, d], acc); head norms: heads ascending
//   embedding   dW[v, d] : acc = fma(scale, dresid[t, d], acc) over the leaf's positions of token
//   v;
//                          leaves without the token are passed over
// All in fp32 from gradients and activations as stored; `Real` is double where derivatives are
// tested against finite differences (tests/gradients/spec_in_double.cpp).
#pragma once

#include "linear.h"

namespace bitlens::spec {

// `leaf` rows at a time; a parameter only so that tests can show that another one moves the bits.
template <typename Real>
BL_FN Real add_products(Real total, const Real* dy, int64_t dy_stride, const Real* x,
                        int64_t x_stride, int64_t rows, int64_t leaf) {
  for (int64_t start = 0; start < rows; start += leaf) {
    Real acc = 0;
    for (int64_t t = start; t < (start + leaf < rows ? start + leaf : rows); ++t)
      acc = fused(dy[t * dy_stride], x[t * x_stride], acc);
    total = total + acc;
  }
  return total;
}

template <typename Real>
BL_FN Real add_rows(Real total, const Real* dy, int64_t stride, int64_t rows) {
  for (int64_t start = 0; start < rows; start += kLeaf) {
    Real acc = 0;
    for (int64_t t = start; t < (start + kLeaf < rows ? start + kLeaf : rows); ++t)
      acc = acc + dy[t * stride];
    total = total + acc;
  }
  return total;
}

// One entry of the row of `token`.
template <typename Real>
BL_FN Real add_embedded(Real total, const Real* dresid, int64_t stride, const int64_t* tokens,
                        int64_t token, Real scale, int64_t rows) {
  for (int64_t start = 0; start < rows; start += kLeaf) {
    Real acc = 0;
    bool met = false;
    for (int64_t t = start; t < (start + kLeaf < rows ? start + kLeaf : rows); ++t) {
      if (tokens[t] != token) continue;
      acc = fused(scale, dresid[t * stride], acc);
      met = true;
    }
    if (met) total = total + acc;
  }
  return total;
}

}  // namespace bitlens::spec
