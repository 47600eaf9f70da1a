// The score of a sequence from values of its tokens, folded in token order: a score made while the
// model writes has the bits of one made afterwards, for it is the same fold.
//
// Of one head, token t (from 0) has a value z and, for kSoftmax, a logit l. Each operation rounds
// once to fp32; nothing is fused. The head's result r after token t:
//   mean     s = t == 0 ? z : s + z;  r = s / (t + 1)
//   last     r = z
//   max      s = t == 0 || s < z ? z : s;  r = s
//   rolling  a = the last min(t + 1, window) values added oldest first, divided by their number
//            r = t < window ? a : max of all a since t = window - 1
//   ema      e = t == 0 ? z : e + weight * (z - e);  r = max of all e
//   softmax  t == 0: m = l, n = 1, a = z. Else if m < l: c = exp(m - l), n = n * c, a = a * c, m =
//   l;
//            then p = exp(l - m), n = n + p, a = a + p * z.  r = a / n
// The sequence's score after token t is the heads' r added in ascending order, then the intercept.
// max(a, b) = a < b ? b : a.
#pragma once

#include "exp.h"

namespace bitlens::spec {

enum class Aggregate : int { kMean, kLast, kMax, kRolling, kEma, kSoftmax };

// `window` is for kRolling, at least 1; `weight` is kEma's.
struct FoldRule {
  Aggregate aggregate;
  int64_t window;
  float weight;
};

// Floats that a head keeps between two tokens.
BL_FN int64_t fold_state_floats(const FoldRule& rule) {
  switch (rule.aggregate) {
    case Aggregate::kLast:
      return 0;
    case Aggregate::kMean:
    case Aggregate::kMax:
      return 1;
    case Aggregate::kRolling:
      return 1 + rule.window;
    case Aggregate::kEma:
      return 2;
    case Aggregate::kSoftmax:
      return 3;
  }
  return 0;
}

BL_FN float larger(float a, float b) { return a < b ? b : a; }

// state: the largest mean, then the last `window` values, token t at 1 + t % window.
BL_FN float fold_rolling(int64_t window, int64_t seen, float z, float* state) {
  state[1 + seen % window] = z;
  const int64_t count = seen + 1 < window ? seen + 1 : window;
  float sum = 0.0f;
  for (int64_t i = seen + 1 - count; i <= seen; ++i) {
    const float value = state[1 + i % window];
    sum = i == seen + 1 - count ? value : sum + value;
  }
  const float mean = sum / static_cast<float>(count);
  state[0] = seen < window ? mean : larger(state[0], mean);
  return state[0];
}

// state: m, n, a.
BL_FN float fold_softmax(int64_t seen, float l, float z, float* state) {
  if (seen == 0) {
    state[0] = l, state[1] = 1.0f, state[2] = z;
    return state[2] / state[1];
  }
  if (state[0] < l) {
    const float c = exp_f32(state[0] - l);
    state[1] = state[1] * c;
    state[2] = state[2] * c;
    state[0] = l;
  }
  const float p = exp_f32(l - state[0]);
  state[1] = state[1] + p;
  const float weighted = p * z;
  state[2] = state[2] + weighted;
  return state[2] / state[1];
}

// One head takes the token that `seen` tokens came before; returns r.
BL_FN float fold_head(const FoldRule& rule, int64_t seen, float l, float z, float* state) {
  switch (rule.aggregate) {
    case Aggregate::kMean:
      state[0] = seen == 0 ? z : state[0] + z;
      return state[0] / static_cast<float>(seen + 1);
    case Aggregate::kLast:
      return z;
    case Aggregate::kMax:
      state[0] = seen == 0 ? z : larger(state[0], z);
      return state[0];
    case Aggregate::kRolling:
      return fold_rolling(rule.window, seen, z, state);
    case Aggregate::kEma: {
      const float step = rule.weight * (z - state[0]);
      state[0] = seen == 0 ? z : state[0] + step;
      state[1] = seen == 0 ? state[0] : larger(state[1], state[0]);
      return state[1];
    }
    case Aggregate::kSoftmax:
      return fold_softmax(seen, l, z, state);
  }
  return z;
}

// A token's `heads` values, and logits where the rule has them, else null; returns the score.
BL_FN float fold_token(const FoldRule& rule, int64_t seen, int64_t heads, const float* logits,
                       const float* values, float intercept, float* state) {
  const int64_t each = fold_state_floats(rule);
  float total = 0.0f;
  for (int64_t h = 0; h < heads; ++h) {
    const float l = logits == nullptr ? 0.0f : logits[h];
    const float r = fold_head(rule, seen, l, values[h], state + h * each);
    total = h == 0 ? r : total + r;
  }
  return total + intercept;
}

}  // namespace bitlens::spec
