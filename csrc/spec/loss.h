// The functions that losses are made of, in fp64: exp and log are those of rope.h and log.h.
//
//   bounded_exp  exp_f64 of x within +-700
//   softplus     a = -|x|;  e = bounded_exp(a);  max(x, 0) + log1p(e), where
//                log1p(e) = 2 atanh(e / (2 + e)) by log.h's series if e <= 1/4, else log_f64(1 + e)
// NaN gives NaN. -log of the logistic function of x is softplus(-x).
#pragma once

#include "rope.h"

namespace bitlens::spec {

BL_FN double bounded_exp(double x) {
  if (x != x) return x;
  return exp_f64(x > 700.0 ? 700.0 : x < -700.0 ? -700.0 : x);
}

BL_FN double softplus(double x) {
  if (x != x) return x;
  const double e = bounded_exp(x > 0.0 ? -x : x);
  const double log1p = e <= 0.25 ? log_of_ratio(e / (2.0 + e)) : log_f64(1.0 + e);
  return (x > 0.0 ? x : 0.0) + log1p;
}

}  // namespace bitlens::spec
