// Golden cases of gradients, evaluated by the spec.
#pragma once

#include "../spec/backward.h"
#include "../spec/softmax.h"
#include "golden_case.h"

namespace bitlens::spec_tests {

BL_FN void evaluate_scaled(const Case& c, Sink* sink) {
  for (int i = 0; i < c.n; ++i) {
    const float x = centered_act(stream(c.seed, 0), i, c.act);
    put(sink, spec::scaled(x, static_cast<float>(c.real), c.out));
  }
}

// Per row: dscale, dx of the division, dx of the scale.
BL_FN void evaluate_normalize_backward(const Case& c, float* scratch, Sink* sink) {
  float* x = scratch;
  float* dn = x + c.k;
  float* normalized = dn + c.k;
  float* dx = normalized + c.k;
  for (int row = 0; row < c.rows; ++row) {
    const int64_t start = static_cast<int64_t>(row) * c.k;
    fill(x, c.k, stream(c.seed, 0), start, Format::kF32);
    fill(dn, c.k, stream(c.seed, 1), start, Format::kF32);
    const float scale = spec::rms_scale(x, c.k, static_cast<float>(c.real));
    for (int i = 0; i < c.k; ++i) normalized[i] = spec::normalize(x[i], scale);
    const float dscale = spec::normalize_backward(dn, normalized, scale, c.k, dx);
    put(sink, dscale);
    put_all(sink, dx, c.k);
    spec::rms_scale_backward(dscale, normalized, c.k, dx);
    put_all(sink, dx, c.k);
  }
}

BL_FN void evaluate_rms_norm_backward(const Case& c, float* scratch, Sink* sink) {
  const Format x_format = c.flag == 1 ? Format::kF32 : c.act;
  float* w = scratch;
  float* x = w + c.k;
  float* dy = x + c.k;
  fill(w, c.k, stream(c.seed, 0), 0, Format::kF32);
  for (int row = 0; row < c.rows; ++row) {
    const int64_t start = static_cast<int64_t>(row) * c.k;
    fill(x, c.k, stream(c.seed, 1), start, x_format);
    fill(dy, c.k, stream(c.seed, 2), start, c.act);
    spec::rms_norm_backward(dy, x, w, c.k, static_cast<float>(c.real), x_format, dy + c.k,
                            dy + 2 * c.k, dy);
    put_all(sink, dy, c.k);
  }
}

BL_FN float score_of(const Case& c, int i) {
  const bool masked = c.flag == 1 && i % 3 == 0;
  return masked ? spec::float_of(0xff800000u) : centered(stream(c.seed, 0), i) * 20.0f;
}

BL_FN void evaluate_softmax_backward(const Case& c, float* scratch, Sink* sink) {
  float* dp = scratch + c.n;
  for (int i = 0; i < c.n; ++i) scratch[i] = score_of(c, i);
  fill(dp, c.n, stream(c.seed, 1), 0, Format::kF32);
  spec::softmax(scratch, c.n, scratch);
  spec::softmax_backward(scratch, dp, c.n, dp + c.n);
  put_all(sink, dp + c.n, c.n);
}

BL_FN float gate_of(const Case& c, int i) {
  const float gate = centered(stream(c.seed, 0), i) * static_cast<float>(c.real);
  return spec::round_act(i < kSpecials ? spec::float_of(special_bits(i)) : gate, c.act);
}

// dgate, then dup, of every element.
BL_FN void evaluate_gated_act_backward(const Case& c, Sink* sink) {
  for (int i = 0; i < c.n; ++i) {
    const float gate = gate_of(c, i);
    const float up = centered_act(stream(c.seed, 1), i, c.act);
    const float dpost = centered_act(stream(c.seed, 2), i, c.act);
    const float slope = c.flag == 0 ? spec::silu_slope(gate) : spec::gelu_tanh_slope(gate);
    const float act = c.flag == 0 ? spec::silu(gate) : spec::gelu_tanh(gate);
    put(sink, spec::round_act((dpost * up) * slope, c.act));
    put(sink, spec::round_act(dpost * act, c.act));
  }
}

}  // namespace bitlens::spec_tests
