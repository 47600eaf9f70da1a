// The log-probability of a token, as the sampler computes it (sampling.h), and its gradient at the
// logits of its row:
//
//   x = logit / T + 0;  Z = the integer sum of weights;  z = float32(float64(Z) * 2^-44)
//   logprob   = float32(float64(x - x_max) - log_f64(float64(Z) * 2^-44))
//   p_j       = exp(x_j - x_max) / z
//   dlogit_j  = (dlogprob * ([j is the token] - p_j)) / T
// A temperature below 1e-5 stands for 1, as in the sampler. A row that the sampler would refuse has
// NaN for both. The gradient is written for double, too, where it is tested against finite
// differences (tests/gradients/spec_in_double.cpp).
#pragma once

#include "loss.h"
#include "sampling.h"

namespace bitlens::spec {

constexpr float kLeastTemperature = 1e-5f;

BL_FN float temperature_of(float temperature) {
  return temperature < kLeastTemperature ? 1.0f : temperature;
}

BL_FN float partition_of(uint64_t total) {
  return static_cast<float>(static_cast<double>(total) * 0x1p-44);
}

BL_FN float exp_of(float x) { return exp_f32(x); }
BL_FN double exp_of(double x) { return bounded_exp(x); }

template <typename Real>
BL_FN Real token_probability(Real x, Real x_max, Real z) {
  return exp_of(x - x_max) / z;
}

template <typename Real>
BL_FN Real logprob_gradient(Real dlogprob, Real p, bool chosen, Real temperature) {
  return (dlogprob * (static_cast<Real>(chosen ? 1 : 0) - p)) / temperature;
}

}  // namespace bitlens::spec
