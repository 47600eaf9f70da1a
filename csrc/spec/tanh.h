// tanh in fp32, an odd polynomial near 0 and the exponential further out.
//
// Operation list (every SIMD and CUDA version does exactly this, one IEEE operation a line):
//   a = |x|;  s = a * a
//   p = fma(kC15, s, kC13);  p = fma(p, s, kC11) ... fma(p, s, kC3)
//   w = a * s;  near = fma(w, p, a)
//   t = a + a;  e = exp(t);  d = e + 1;  q = 2 / d;  far = 1 - q
//   result = a < 1 ? near : far, with the sign of x          compare and select: NaN goes to far
// The polynomial is minimax for the relative error on [0, 1] (Remez; Muller, Elementary Functions,
// ch. 3), its coefficients rounded to fp32 one by one, the rest refitted after each.
#pragma once

#include "exp.h"

namespace bitlens::spec {

constexpr float kTanhC3 = -0x1.55553cp-2f;
constexpr float kTanhC5 = 0x1.110be4p-3f;
constexpr float kTanhC7 = -0x1.b9623ap-5f;
constexpr float kTanhC9 = 0x1.6009a6p-6f;
constexpr float kTanhC11 = -0x1.045ffep-7f;
constexpr float kTanhC13 = 0x1.2da078p-9f;
constexpr float kTanhC15 = -0x1.77cdc6p-12f;
constexpr uint32_t kSignBit = 0x80000000u;

BL_FN float tanh_f32(float x) {
  const uint32_t sign = bits_of(x) & kSignBit;
  const float a = float_of(bits_of(x) ^ sign);
  const float s = a * a;
  float p = fma32(kTanhC15, s, kTanhC13);
  p = fma32(p, s, kTanhC11);
  p = fma32(p, s, kTanhC9);
  p = fma32(p, s, kTanhC7);
  p = fma32(p, s, kTanhC5);
  p = fma32(p, s, kTanhC3);
  const float near = fma32(a * s, p, a);
  const float far = 1.0f - 2.0f / (exp_f32(a + a) + 1.0f);
  return float_of(bits_of(a < 1.0f ? near : far) | sign);
}

}  // namespace bitlens::spec
