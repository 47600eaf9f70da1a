// Soft cap: y = cap * tanh(x / cap), three roundings, all in fp32 (Gemma 2, arXiv 2408.00118).
// Rounding and tanh_f32 never fall as x rises, so the cap may tie two values but not swap them.
// Its derivative, from y:  t = y / cap;  dx = dy * fma(0 - t, t, 1)
#pragma once

#include "tanh.h"

namespace bitlens::spec {

BL_FN float soft_cap(float x, float cap) { return cap * tanh_f32(x / cap); }

// y is the capped value.
BL_FN float soft_cap_backward(float dy, float y, float cap) {
  const float t = y / cap;
  return dy * fma32(0.0f - t, t, 1.0f);
}

}  // namespace bitlens::spec
