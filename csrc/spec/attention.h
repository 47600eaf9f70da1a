// Attention of one query row and one head over keys at absolute positions 0 .. position.
//
// Key j is visible when first <= j <= position, first = max(0, position - window + 1).
//   score_j   = dot(q, k_j) * scale                       (linear.h's order over d_head)
//               soft_cap(score_j, cap) where the layer has a cap       (soft_cap.h)
//   pattern   = softmax of the scores over absolute positions, masked = -inf   (softmax.h)
//   z_h       = per leaf of 256 absolute positions one FMA chain from +0 over its visible keys,
//               ascending, of fma(pattern_j, v_jh, acc); leaves that hold a visible key are added
//               ascending; one rounding to the activation dtype
//   lse       = m0 + log(l)
// Masked keys are never read. Query head i uses key-value head i / (n_heads / n_key_value_heads).
#pragma once

#include "formats.h"
#include "linear.h"
#include "soft_cap.h"
#include "softmax.h"

namespace bitlens::spec {

// window 0: every key up to the query's own position.
BL_FN int64_t first_visible(int64_t position, int64_t window) {
  return window > 0 && position - window + 1 > 0 ? position - window + 1 : 0;
}

// cap 0: none.
BL_FN float attention_score(const float* q, const float* k, int d_head, float scale, float cap) {
  const float score = dot(q, k, d_head) * scale;
  return cap > 0.0f ? soft_cap(score, cap) : score;
}

// scores: position + 1 values, -inf where masked.
BL_FN void attention_scores(const float* q, const float* k, int64_t k_stride, int d_head,
                            float scale, float cap, int64_t position, int64_t window,
                            float* scores) {
  const int64_t first = first_visible(position, window);
  for (int64_t j = 0; j < first; ++j) scores[j] = float_of(0xff800000u);
  for (int64_t j = first; j <= position; ++j) {
    scores[j] = attention_score(q, k + j * k_stride, d_head, scale, cap);
  }
}

BL_FN float attention_value(const float* pattern, const float* v, int64_t v_stride, int64_t first,
                            int64_t position, int h) {
  float total = 0.0f;
  bool empty = true;
  for (int64_t start = first / kLeaf * kLeaf; start <= position; start += kLeaf) {
    const int64_t begin = start < first ? first : start;
    const int64_t end = block_end(start, position + 1, kLeaf);
    float acc = 0.0f;
    for (int64_t j = begin; j < end; ++j) acc = fma32(pattern[j], v[j * v_stride + h], acc);
    total = empty ? acc : total + acc;
    empty = false;
  }
  return total;
}

BL_FN void attention_values(const float* pattern, const float* v, int64_t v_stride, int d_head,
                            int64_t position, int64_t window, Format act, float* z) {
  const int64_t first = first_visible(position, window);
  for (int h = 0; h < d_head; ++h) {
    z[h] = round_act(attention_value(pattern, v, v_stride, first, position, h), act);
  }
}

// pattern: room for position + 1 values, holds the pattern on return. Returns the lse.
BL_FN float attention(const float* q, const float* k, int64_t k_stride, const float* v,
                      int64_t v_stride, int d_head, float scale, float cap, int64_t position,
                      int64_t window, Format act, float* pattern, float* z) {
  attention_scores(q, k, k_stride, d_head, scale, cap, position, window, pattern);
  const SoftmaxTerms terms = softmax(pattern, position + 1, pattern);
  attention_values(pattern, v, v_stride, d_head, position, window, act, z);
  return logsumexp_of(terms);
}

}  // namespace bitlens::spec
