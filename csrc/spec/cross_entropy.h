// Cross entropy of one fp32 row of logits, with label smoothing s: of the distribution that puts
// 1 - s on the target and spreads s evenly over all n classes (Szegedy et al. 2016, section 7).
//
//   lse   = logsumexp of the row (softmax.h)
//   loss  = lse - x_target                                             where s is 0
//   loss  = (1 - s) * (lse - x_target) + s * (lse - row sum(x) / float(n))   elsewhere
//   mean  = row sum(losses) / float(count)                             (reductions.h)
// Every operation rounds once to fp32, bf16 logits are widened first. A row whose target is ignored
// has the loss +0 and is not counted.
#pragma once

#include "softmax.h"

namespace bitlens::spec {

BL_FN float smoothed_loss(float lse, float target, float row_sum, int64_t n, float smoothing) {
  if (smoothing == 0.0f) return lse - target;
  const float even = lse - row_sum / static_cast<float>(n);
  return (1.0f - smoothing) * (lse - target) + smoothing * even;
}

BL_FN float cross_entropy(const float* x, int64_t n, int64_t target, float smoothing) {
  return smoothed_loss(logsumexp(x, n), x[target], row_sum(x, n), n, smoothing);
}

}  // namespace bitlens::spec
