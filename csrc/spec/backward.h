// Derivatives: what a gradient of an operation's output becomes at its inputs. All in fp32 from
// activations as stored; `linear`, RoPE and attention need nothing new, as their derivatives are
// again linear.h, rope.h and attention.h (docs/numerics.md, Gradients).
//
//   row dot          = reductions.h with acc = fma(x, y, acc)
//   normalize        dx = dn / scale;  dscale = (0 - row dot(dn, x / scale)) / scale
//   rms_scale        c = dscale / float(d);  dx = c * (x / scale)
//   rms_norm         dn = dy * w, then both of these: dx = round_act(dn / scale + c * (x / scale))
//   softmax          D = row dot(p, dp);  ds = p * (dp - D)
//   gated product    dgate = round_act((dpost * up) * act'(gate))
//                    dup   = round_act(dpost * act(gate))
//     act'           e = exp(z);  s = 1 / (1 + e);  act' = s * fma(t * (e * s), 0 - dz, 1)
//     silu           t = gate within +-80;  z = 0 - t;  dz = -1
//     gelu_tanh      t = gate within +-10;  q = t * t
//                    z = kGeluScale * (t * fma(kGeluCubic, q, 1))
//                    dz = kGeluScale * fma(kGeluCubic3, q, 1)
// e * s is 1 - s without cancellation. Within these limits e is finite; beyond them act' is below
// 2e-33 or within 2e-33 of 1.
#pragma once

#include "activation.h"
#include "rms_norm.h"

namespace bitlens::spec {

constexpr float kSiluReach = 80.0f;
constexpr float kGeluReach = 10.0f;
constexpr float kGeluCubic3 = 0x1.12ba9ep-3f;  // 3 * 0.044715

// round_out(x * factor); a factor of 1 widens and rounds.
BL_FN float scaled(float x, float factor, Format out) { return round_act(x * factor, out); }

BL_FN float row_dot(const float* x, const float* y, int64_t n) {
  float total = 0.0f;
  for (int64_t start = 0; start < n; start += kRowBlock) {
    float lane[kLanes] = {};
    for (int64_t i = start; i < block_end(start, n, kRowBlock); ++i) {
      lane[i % kLanes] = fma32(x[i], y[i], lane[i % kLanes]);
    }
    const float block = lane_tree(lane);
    total = start == 0 ? block : total + block;
  }
  return total;
}

// `normalized` is x / scale. Returns dscale.
BL_FN float normalize_backward(const float* dn, const float* normalized, float scale, int64_t d,
                               float* dx) {
  for (int64_t i = 0; i < d; ++i) dx[i] = dn[i] / scale;
  return (0.0f - row_dot(dn, normalized, d)) / scale;
}

BL_FN void rms_scale_backward(float dscale, const float* normalized, int64_t d, float* dx) {
  const float c = dscale / static_cast<float>(d);
  for (int64_t i = 0; i < d; ++i) dx[i] = c * normalized[i];
}

// `dn` and `normalized` take d floats; dx may be dy.
BL_FN void rms_norm_backward(const float* dy, const float* x, const float* w, int64_t d, float eps,
                             Format act, float* dn, float* normalized, float* dx) {
  const float scale = rms_scale(x, d, eps);
  for (int64_t i = 0; i < d; ++i) {
    dn[i] = dy[i] * w[i];
    normalized[i] = normalize(x[i], scale);
  }
  const float dscale = (0.0f - row_dot(dn, normalized, d)) / scale;
  const float c = dscale / static_cast<float>(d);
  for (int64_t i = 0; i < d; ++i) dx[i] = round_act(dn[i] / scale + c * normalized[i], act);
}

BL_FN void softmax_backward(const float* p, const float* dp, int64_t n, float* ds) {
  const float mean = row_dot(p, dp, n);
  for (int64_t i = 0; i < n; ++i) ds[i] = p[i] * (dp[i] - mean);
}

// x within +-reach; NaN passes through.
BL_FN float within(float x, float reach) {
  x = x > reach ? reach : x;
  return x < -reach ? -reach : x;
}

BL_FN float slope_of(float t, float z, float dz) {
  const float e = exp_f32(z);
  const float s = 1.0f / (1.0f + e);
  return s * fma32(t * (e * s), 0.0f - dz, 1.0f);
}

BL_FN float silu_slope(float g) {
  const float t = within(g, kSiluReach);
  return slope_of(t, 0.0f - t, -1.0f);
}

BL_FN float gelu_tanh_slope(float g) {
  const float t = within(g, kGeluReach);
  const float q = t * t;
  const float z = kGeluScale * (t * fma32(kGeluCubic, q, 1.0f));
  return slope_of(t, z, kGeluScale * fma32(kGeluCubic3, q, 1.0f));
}

}  // namespace bitlens::spec
