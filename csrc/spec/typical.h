// Locally typical sampling (Meister et al. 2022) in integers (docs/numerics.md, Sampling).
//
// The surprisal of a token less the entropy of its distribution is x_max - x less the mean of that:
// ln Z cancels. Gaps are in units of 2^-27, which fit 32 bits for every token that has a weight.
#pragma once

#include "sampling.h"

namespace bitlens::spec {

constexpr double kGapScale = 0x1p27;

// round((x_max - x) * 2^27), ties to even; d = x - x_max of a token with a weight, so above -31.2.
BL_FN uint32_t gap(float d) {
  const double t = static_cast<double>(d) * -kGapScale + 0x1.8p52;
  return static_cast<uint32_t>(bits_of_f64(t));
}

// floor(a / b), which is below 2^32. By shifts: what compilers make of a division of 128 bits for a
// GPU begins with an approximate reciprocal.
BL_FN uint32_t long_quotient(unsigned __int128 a, uint64_t b) {
  uint32_t quotient = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const unsigned __int128 part = static_cast<unsigned __int128>(b) << bit;
    if (a < part) continue;
    a -= part;
    quotient |= 1u << bit;
  }
  return quotient;
}

// The mean gap, to the nearest integer, ties up: of the token whose surprisal is the entropy.
BL_FN uint32_t typical_centre(unsigned __int128 weighted_gaps, uint64_t mass) {
  return long_quotient(weighted_gaps + mass / 2, mass);
}

// Larger is earlier: nearer to the centre, then smaller id; ids are below 2^24.
BL_FN uint64_t typical_key(uint32_t gap, uint32_t centre, uint32_t id) {
  const uint32_t distance = gap > centre ? gap - centre : centre - gap;
  return (static_cast<uint64_t>(~distance) << 24) | (0xffffffu - id);
}

BL_FN uint64_t typical_key_of(uint64_t order_key, float x_max, uint32_t centre) {
  return typical_key(gap(x_of_key(order_key) - x_max), centre, id_of_key(order_key));
}

}  // namespace bitlens::spec
