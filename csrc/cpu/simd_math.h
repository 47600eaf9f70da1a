// exp, tanh, soft_cap, silu and gelu_tanh on 16 lanes: the operation lists of the headers of
// csrc/spec that are called after them.
#pragma once

#include "../spec/activation.h"
#include "../spec/soft_cap.h"
#include "simd.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

// p * 2^n rounded once, where t = n + kRoundMagic and nf = n.
inline f32x16 scale_by_exp2(f32x16 p, f32x16 t, f32x16 nf) {
#if defined(BITLENS_ISA_AVX512)
  (void)t;
  return {_mm512_scalef_ps(p.v, nf.v)};
#else
  (void)nf;
  const i32x16 bias = splat_int(127);
  const i32x16 n = bits(t) - splat_int(static_cast<int32_t>(spec::kRoundMagicBits));
  const i32x16 n1 = shift_right_signed<1>(n);
  const i32x16 n2 = n - n1;
  const f32x16 half = from_bits(shift_left<23>(n1 + bias));
  return (p * half) * from_bits(shift_left<23>(n2 + bias));
#endif
}

inline f32x16 exp(f32x16 x) {
  const f32x16 one = splat(1.0f);
  const f32x16 magic = splat(spec::kRoundMagic);
  x = min(splat(spec::kExpMax), x);
  x = max(splat(spec::kExpMin), x);
  const f32x16 t = fma(x, splat(spec::kLog2E), magic);
  const f32x16 nf = t - magic;
  f32x16 r = fma(nf, splat(-spec::kLn2Hi), x);  // -nf * hi and nf * -hi are the same product
  r = fma(nf, splat(-spec::kLn2Lo), r);
  f32x16 p = fma(splat(spec::kExpC6), r, splat(spec::kExpC5));
  p = fma(p, r, splat(spec::kExpC4));
  p = fma(p, r, splat(spec::kExpC3));
  p = fma(p, r, splat(spec::kExpC2));
  p = fma(p, r, one);
  p = fma(p, r, one);
  return scale_by_exp2(p, t, nf);
}

inline f32x16 tanh(f32x16 x) {
  const f32x16 one = splat(1.0f);
  const i32x16 sign_bit = splat_int(INT32_MIN);
  const i32x16 sign = bits(x) & sign_bit;
  const f32x16 a = from_bits(bits(x) - sign);
  const f32x16 s = a * a;
  f32x16 p = fma(splat(spec::kTanhC15), s, splat(spec::kTanhC13));
  p = fma(p, s, splat(spec::kTanhC11));
  p = fma(p, s, splat(spec::kTanhC9));
  p = fma(p, s, splat(spec::kTanhC7));
  p = fma(p, s, splat(spec::kTanhC5));
  p = fma(p, s, splat(spec::kTanhC3));
  const f32x16 near = fma(a * s, p, a);
  const f32x16 far = one - splat(2.0f) / (exp(a + a) + one);
  return from_bits(bits(select_less(a, one, near, far)) | sign);
}

inline f32x16 soft_cap(f32x16 x, f32x16 cap) { return cap * tanh(x / cap); }

inline f32x16 sigmoid_product(f32x16 g, f32x16 z) { return g / (splat(1.0f) + exp(z)); }

inline f32x16 silu(f32x16 g) { return sigmoid_product(g, zero() - g); }

inline f32x16 gelu_tanh(f32x16 g) {
  const f32x16 u = fma(splat(spec::kGeluCubic), g * g, splat(1.0f));
  return sigmoid_product(g, splat(spec::kGeluScale) * (g * u));
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
