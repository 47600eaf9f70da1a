// The stepwise policy: every operation of the eager PyTorch graph is rounded on its own, where the
// other policies round once at the end (docs/numerics.md, Stepwise rounding).
//
//   norm:   round(round(x / scale) * w)
//   rope:   c, s = round(cos), round(sin);  o1 = round(round(x1 * c) + round(-x2 * s))
//           o2 = round(round(x2 * c) + round(x1 * s))
//   scores: round(round(dot(q, k)) * scale)
//   gated:  round(round(act(gate)) * up)
// round is to the activation dtype.
#pragma once

#include "formats.h"

namespace bitlens::spec {

BL_FN float stepwise_norm_weight(float normalized, float w, Format act) {
  return round_act(round_act(normalized, act) * w, act);
}

// One head, in place or not: x and out hold d_head values, cos and sin d_head / 2.
BL_FN void stepwise_rope(const float* x, const float* cos, const float* sin, int d_head, Format act,
                         float* out) {
  const int half = d_head / 2;
  for (int j = 0; j < half; ++j) {
    const float c = round_act(cos[j], act), s = round_act(sin[j], act);
    const float x1 = x[j], x2 = x[j + half];
    out[j] = round_act(round_act(x1 * c, act) + round_act(-x2 * s, act), act);
    out[j + half] = round_act(round_act(x2 * c, act) + round_act(x1 * s, act), act);
  }
}

// dot is q . k in linear.h's order.
BL_FN float stepwise_score(float dot, float scale, Format act) {
  return round_act(round_act(dot, act) * scale, act);
}

BL_FN float stepwise_gated(float activated, float up, Format act) {
  return round_act(round_act(activated, act) * up, act);
}

}  // namespace bitlens::spec
