// How one logit becomes an order key, a weight, a noise and a score (docs/numerics.md, Sampling).
#pragma once

#include "exp.h"
#include "log.h"
#include "philox.h"

namespace bitlens::spec {

constexpr float kWeightScale = 0x1p44f;  // weights are unsigned Q0.44
constexpr double kScoreScale = 0x1p40;   // scores are signed fixed point
constexpr double kSmallNoise = 0.25;     // below it E comes from the series of log1p

// What distinguishes the noise of one row from that of another.
struct NoiseKey {
  uint64_t seed;
  uint32_t position, draw, domain;
};

// Larger is earlier in the total order: x descending, then id ascending. x is no NaN.
BL_FN uint32_t order_bits(float x) {
  const uint32_t u = bits_of(x + 0.0f);  // -0 is +0
  return (u >> 31) != 0 ? ~u : u | 0x80000000u;
}

BL_FN float x_of_order_bits(uint32_t order) {
  return float_of((order >> 31) != 0 ? order & 0x7fffffffu : ~order);
}

BL_FN uint64_t order_key(float x, uint32_t id) {
  return (static_cast<uint64_t>(order_bits(x)) << 32) | static_cast<uint32_t>(~id);
}

BL_FN uint32_t id_of_key(uint64_t key) { return ~static_cast<uint32_t>(key); }
BL_FN float x_of_key(uint64_t key) { return x_of_order_bits(static_cast<uint32_t>(key >> 32)); }

// Repetition, then frequency, then presence (vLLM's order); count is that of generated tokens.
BL_FN float penalize(float logit, bool seen, uint32_t count, float repetition, float frequency,
                     float presence) {
  if (seen) logit = logit > 0.0f ? logit / repetition : logit * repetition;
  if (count == 0) return logit;
  const float product = frequency * static_cast<float>(count);
  return (logit - product) - presence;
}

BL_FN float scale_logit(float logit, float temperature) { return logit / temperature + 0.0f; }

// e * 2^44 is exact in fp32; adding 1.5 * 2^52 in fp64 rounds it to an integer, ties to even.
BL_FN uint64_t weight_of_exp(float e) {
  const double t = static_cast<double>(e * kWeightScale) + 0x1.8p52;
  return bits_of_f64(t) - 0x4338000000000000u;
}

BL_FN uint64_t weight(float x, float x_max) { return weight_of_exp(exp_f32(x - x_max)); }

BL_FN uint64_t noise_bits(const NoiseKey& key, uint32_t id) {
  const Philox r = philox(key.seed, {{id >> 1, key.position, key.draw, key.domain}});
  const bool odd = (id & 1u) != 0;  // selected, not indexed: a GPU's registers have no addresses
  const uint32_t low = odd ? r.word[2] : r.word[0], high = odd ? r.word[3] : r.word[1];
  return low | (static_cast<uint64_t>(high) << 32);
}

// E = -ln(1 - v), v = (r + 1/2) / 2^64: positive, finite, at full relative precision at both ends.
BL_FN double exponential_noise(uint64_t r) {
  const double v = (static_cast<double>(r) + 0.5) * 0x1p-64;
  if (v >= kSmallNoise) return -log_f64((static_cast<double>(~r) + 0.5) * 0x1p-64);
  return log_of_ratio(v / (2.0 - v));
}

// round((d - ln E) * 2^40), ties to even; |score| < 2^47.
BL_FN int64_t score(float d, uint64_t r) {
  const double gumbel = static_cast<double>(d) - log_f64(exponential_noise(r));
  const double t = gumbel * kScoreScale + 0x1.8p52;
  return static_cast<int64_t>(bits_of_f64(t) - 0x4338000000000000u);
}

// The smallest integer that is at least p * total: a token is kept while the mass before it is
// less.
BL_FN uint64_t nucleus_limit(float p, uint64_t total) {
  const uint32_t u = bits_of(p);
  const int exponent = static_cast<int>(u >> 23);
  const uint64_t mantissa = exponent != 0 ? (u & 0x7fffffu) | 0x800000u : u & 0x7fffffu;
  const int shift = 150 - (exponent != 0 ? exponent : 1);  // p = mantissa * 2^-shift
  if (shift > 88) return 1;
  const unsigned __int128 product = static_cast<unsigned __int128>(mantissa) * total;
  const unsigned __int128 one = 1;
  return static_cast<uint64_t>((product + ((one << shift) - 1)) >> shift);
}

// ln of the probability; total is the sum of the weights of all tokens before any filter.
BL_FN float logprob(float x, float x_max, uint64_t total) {
  const double z = static_cast<double>(total) * 0x1p-44;
  return static_cast<float>(static_cast<double>(x - x_max) - log_f64(z));
}

}  // namespace bitlens::spec
