// Rotary position embedding (Su et al. 2021), rotate-half convention.
//
// Tables, in fp64 with our own exp, log and sincos, rounded once to fp32:
//   inv_freq[j] = exp_f64(-(((2 j) / d_head) * log_f64(theta))),  j < d_head / 2
//   angle = position * inv_freq[j];  cos, sin = sincos_f64(angle), each times the attention factor
// Scaled RoPE (model/rope/scaling.py) makes other inv_freq, and a factor other than 1, in fp64 from
// exp_f64, log_f64 and IEEE operations. Application, fp32, for the pair (x[j], x[j + d_head / 2]):
//   o1 = fma(x1, c, -(x2 * s));  o2 = fma(x2, c, x1 * s);  each rounded to the activation dtype
#pragma once

#include "formats.h"
#include "log.h"

namespace bitlens::spec {

constexpr double kRoundMagic64 = 0x1.8p+52;
constexpr uint64_t kRoundMagicBits64 = 0x4338000000000000u;
constexpr double kLog2E64 = 0x1.71547652b82fep+0;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
constexpr double kPiHalfHi = 0x1.921fb54442d18p+0;
constexpr double kPiHalfLo = 0x1.1a62633145c07p-54;

// For |x| <= 700. n = round(x * log2 e); r = x - n ln 2; Taylor to degree 13; exact scaling.
BL_FN double exp_f64(double x) {
  const double t = fma64(x, kLog2E64, kRoundMagic64);
  const double n = t - kRoundMagic64;
  double r = fma64(-n, kLn2Hi64, x);
  r = fma64(-n, kLn2Lo64, r);
  double p = 1.0 / 6227020800.0;  // 1/13!
  p = fma64(p, r, 1.0 / 479001600.0);
  p = fma64(p, r, 1.0 / 39916800.0);
  p = fma64(p, r, 1.0 / 3628800.0);
  p = fma64(p, r, 1.0 / 362880.0);
  p = fma64(p, r, 1.0 / 40320.0);
  p = fma64(p, r, 1.0 / 5040.0);
  p = fma64(p, r, 1.0 / 720.0);
  p = fma64(p, r, 1.0 / 120.0);
  p = fma64(p, r, 1.0 / 24.0);
  p = fma64(p, r, 1.0 / 6.0);
  p = fma64(p, r, 0.5);
  p = fma64(p, r, 1.0);
  p = fma64(p, r, 1.0);
  const uint64_t exponent = bits_of_f64(t) - kRoundMagicBits64 + 1023u;
  return p * double_of(exponent << 52);
}

struct SinCos {
  double sin;
  double cos;
};

// For |angle| < 2^31. q = round(angle * 2/pi); r = angle - q pi/2 in |r| <= pi/4; Taylor.
BL_FN SinCos sincos_f64(double angle) {
  const double t = fma64(angle, kTwoOverPi, kRoundMagic64);
  const double q = t - kRoundMagic64;
  double r = fma64(-q, kPiHalfHi, angle);
  r = fma64(-q, kPiHalfLo, r);
  const double z = r * r;
  double s = 1.0 / 355687428096000.0;  // 1/17!
  s = fma64(s, z, -1.0 / 1307674368000.0);
  s = fma64(s, z, 1.0 / 6227020800.0);
  s = fma64(s, z, -1.0 / 39916800.0);
  s = fma64(s, z, 1.0 / 362880.0);
  s = fma64(s, z, -1.0 / 5040.0);
  s = fma64(s, z, 1.0 / 120.0);
  s = fma64(s, z, -1.0 / 6.0);
  s = fma64(r * z, s, r);
  double c = 1.0 / 20922789888000.0;  // 1/16!
  c = fma64(c, z, -1.0 / 87178291200.0);
  c = fma64(c, z, 1.0 / 479001600.0);
  c = fma64(c, z, -1.0 / 3628800.0);
  c = fma64(c, z, 1.0 / 40320.0);
  c = fma64(c, z, -1.0 / 720.0);
  c = fma64(c, z, 1.0 / 24.0);
  c = fma64(c, z, -0.5);
  c = fma64(c, z, 1.0);
  switch ((bits_of_f64(t) - kRoundMagicBits64) & 3u) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

BL_FN double rope_inv_freq(double theta, int j, int d_head) {
  const double fraction = (2.0 * static_cast<double>(j)) / static_cast<double>(d_head);
  return exp_f64(-(fraction * log_f64(theta)));
}

BL_FN void rope_table_entry(double inv_freq, int64_t position, float* cos, float* sin,
                            double attention_factor = 1.0) {
  const SinCos value = sincos_f64(static_cast<double>(position) * inv_freq);
  *cos = static_cast<float>(value.cos * attention_factor);
  *sin = static_cast<float>(value.sin * attention_factor);
}

// One head, in place or not: x and out hold d_head values, cos and sin d_head / 2.
BL_FN void rope(const float* x, const float* cos, const float* sin, int d_head, Format act,
                float* out) {
  const int half = d_head / 2;
  for (int j = 0; j < half; ++j) {
    const float x1 = x[j];
    const float x2 = x[j + half];
    out[j] = round_act(fma32(x1, cos[j], -(x2 * sin[j])), act);
    out[j + half] = round_act(fma32(x2, cos[j], x1 * sin[j]), act);
  }
}

}  // namespace bitlens::spec
