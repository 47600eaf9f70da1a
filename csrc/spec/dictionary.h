// Sparse dictionaries: which features of a row are active, sums of few rows of a table, and a step
// of training. Encoding is a linear (linear.h), of which these functions take the outputs.
#pragma once

#include "backward.h"
#include "linear.h"

namespace bitlens::spec {

// Whether entry i comes before entry j: the larger value first, of equal ones the smaller index;
// -0 equals +0. NaN comes before nothing.
BL_FN bool comes_before(const float* x, int64_t i, int64_t j) {
  return x[i] > x[j] || (x[i] == x[j] && i < j);
}

// The k first entries of x[n] in that order, by ascending index, into values and indices; where
// there are fewer than k numbers, the rest is index -1 and value 0. A negative value may be
// selected: what is active has a positive one, which the caller sees to.
BL_FN void top_k(const float* x, int64_t n, int64_t k, float* values, int32_t* indices) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] != x[i]) continue;
    int64_t before = 0;
    for (int64_t j = 0; j < n; ++j) before += j != i && comes_before(x, j, i) ? 1 : 0;
    if (before >= k) continue;
    values[count] = x[i];
    indices[count++] = static_cast<int32_t>(i);
  }
  for (; count < k; ++count) values[count] = 0.0f, indices[count] = -1;
}

// The entries of x[n] that are strictly above their thresholds, by ascending index; NaN never is.
// Returns how many there are.
BL_FN int64_t above(const float* x, const float* thresholds, int64_t n, float* values,
                    int32_t* indices) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] > thresholds[i])) continue;
    values[count] = x[i];
    indices[count++] = static_cast<int32_t>(i);
  }
  return count;
}

// One column of a sum of rows: terms coefs[i] * table[rows[i] * stride] in ascending i, in leaves
// of 256 entries one FMA chain from +0 each, leaf sums ascending, the bias last. Index -1 is passed
// over, but counts as an entry of its leaf.
BL_FN float weighted_sum(const float* coefs, const int32_t* rows, int64_t count, const float* table,
                         int64_t stride, const float* bias) {
  float total = 0.0f;
  for (int64_t start = 0; start < count; start += kLeaf) {
    float leaf = 0.0f;
    for (int64_t i = start; i < block_end(start, count, kLeaf); ++i)
      if (rows[i] >= 0) leaf = fma32(coefs[i], table[rows[i] * stride], leaf);
    total = start == 0 ? leaf : total + leaf;
  }
  return bias == nullptr ? total : total + *bias;
}

// w / its norm; a zero row stays as it is.
BL_FN void unit_row(float* w, int64_t d) {
  const float norm = sqrtf(row_sum_of_squares(w, d));
  if (norm == 0.0f) return;
  for (int64_t i = 0; i < d; ++i) w[i] = w[i] / norm;
}

// g less what lies along w, whose norm is 1.
BL_FN void project_row(float* g, const float* w, int64_t d) {
  const float along = row_dot(g, w, d);
  for (int64_t i = 0; i < d; ++i) g[i] = g[i] - along * w[i];
}

// Numbers of a step of Adam; `clip` is what gradients are multiplied by first, `decay` what
// parameters are: 1 without weight decay.
struct AdamStep {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, step, v_scale, eps, clip, decay;
};

// One element: no operation is fused.
BL_FN void adam(const AdamStep& op, float g, float* p, float* m, float* v) {
  const float grad = g * op.clip;
  *m = op.beta1 * *m + op.one_minus_beta1 * grad;
  *v = op.beta2 * *v + op.one_minus_beta2 * (grad * grad);
  *p = *p * op.decay - op.step * (*m / (sqrtf(*v) * op.v_scale + op.eps));
}

}  // namespace bitlens::spec
