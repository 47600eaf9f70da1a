// RMS norm (Zhang & Sennrich 2019): y = round_act(x / sqrt(mean(x^2) + eps) * w).
//
//   s = row sum of squares (reductions.h);  mean = s / float(d);  scale = sqrt(mean + eps)
//   normalized = x / scale  (fp32);  y = round_act(normalized * w)
// With a residual: x = round(x + r) to x's format first, and that x is what is normalized.
// sqrt and division are IEEE. Gemma's (1 + w) is folded into w, in fp32, when weights are loaded.
#pragma once

#include "formats.h"
#include "reductions.h"

namespace bitlens::spec {

// `format` is x's.
BL_FN float add(float x, float y, Format format) { return round_act(x + y, format); }

BL_FN float rms_scale(const float* x, int64_t d, float eps) {
  const float mean = row_sum_of_squares(x, d) / static_cast<float>(d);
  return sqrtf(mean + eps);
}

BL_FN float normalize(float x, float scale) { return x / scale; }

BL_FN float norm_weight(float normalized, float w, Format act) {
  return round_act(normalized * w, act);
}

// y may be x. Returns the scale.
BL_FN float rms_norm(const float* x, const float* w, int64_t d, float eps, Format act, float* y) {
  const float scale = rms_scale(x, d, eps);
  for (int64_t i = 0; i < d; ++i) y[i] = norm_weight(normalize(x[i], scale), w[i], act);
  return scale;
}

}  // namespace bitlens::spec
