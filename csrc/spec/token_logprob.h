// The log-probability of a token, as the sampler computes it (sampling.h), and its gradient at the
// logits of its row:
//
//   x = logit / T + 0;  Z = the integer sum of weights;  z = float32(float64(Z) * 2^-44)
//   logprob   = float32(float64(x - x_max) - log_f64(float64(Z) * 2^-44))
//   p_j       = exp(x_j - x_max) / z
//   dlogit_j  = (dlogprob * ([j is the token] - p_j)) / T
// A temperature below 1e-5 stands for 1, as in the sampler. A row that the sampler would refuse has
// NaN for both.
#pragma once

#include "sampling.h"

namespace bitlens::spec {

constexpr float kLeastTemperature = 1e-5f;

BL_FN float temperature_of(float temperature) {
  return temperature < kLeastTemperature ? 1.0f : temperature;
}

BL_FN float partition_of(uint64_t total) {
  return static_cast<float>(static_cast<double>(total) * 0x1p-44);
}

BL_FN float token_probability(float x, float x_max, float z) { return exp_f32(x - x_max) / z; }

BL_FN float logprob_gradient(float dlogprob, float p, bool chosen, float temperature) {
  return (dlogprob * ((chosen ? 1.0f : 0.0f) - p)) / temperature;
}

}  // namespace bitlens::spec
