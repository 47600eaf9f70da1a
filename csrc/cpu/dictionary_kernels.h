// Operations of sparse dictionaries (SAEs, transcoders) and of training them, all in fp32.
#pragma once

#include "types.h"

namespace bitlens {

// One step of Adam, its weight decay apart from the gradient: g = g * clip; m = beta1 * m +
// (1 - beta1) * g; v = beta2 * v + (1 - beta2) * (g * g); p = p * decay - step * (m / (sqrt(v) *
// v_scale + eps)). Nothing is fused; a decay of 1 is none.
struct AdamStep {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, step, v_scale, eps, clip, decay;
};

// The k largest of a row so far, in no order that means anything.
struct TopKSoFar {
  float* values;
  int32_t* indices;
  int64_t k, size;
};

struct DictionaryKernels {
  // Takes up what of x[n], whose first index is `first`, is among the k largest of a row by (value
  // descending, index ascending). NaN never is. Parts of a row come by ascending index.
  void (*top_k_add)(const float* x, int64_t n, int64_t first, TopKSoFar* found);
  // Sorts by index; where there are fewer than k numbers, the rest is index -1, value 0.
  void (*top_k_finish)(TopKSoFar* found);
  // The entries of x[n] strictly above their thresholds, indices from `first` on, ascending.
  // Returns how many; NaN never is. values and indices have room for n.
  int64_t (*above)(const float* x, const float* thresholds, int64_t n, int64_t first, float* values,
                   int32_t* indices);
  // out[d] = the sum of coefs[i] * table[rows[i]] plus bias: in each leaf of 256 terms one FMA
  // chain from +0, leaf sums ascending, bias (where there is one) last. Index -1 is passed over.
  void (*weighted_sum)(const float* coefs, const int32_t* rows, int64_t count, const float* table,
                       int64_t d, const float* bias, float* out);
  // out[i] = x . table[rows[i]], summed as spec::row_sum sums; 0 for index -1.
  void (*dots)(const float* x, const int32_t* rows, int64_t count, const float* table, int64_t d,
               float* out);
  // out = the sum of squares of x, as spec::row_sum_of_squares.
  float (*sum_of_squares)(const float* x, int64_t d);
  // w = w / sqrt(its sum of squares); a zero row stays as it is.
  void (*unit_row)(float* w, int64_t d);
  // g = g - (g . w) * w, rounded after the product and after the difference.
  void (*project_row)(float* g, const float* w, int64_t d);
  void (*adam)(const AdamStep& op, const float* g, int64_t count, float* p, float* m, float* v);
};

namespace generic {
const DictionaryKernels& dictionary_kernels();
}
namespace avx2 {
const DictionaryKernels& dictionary_kernels();
}
namespace avx512 {
const DictionaryKernels& dictionary_kernels();
}

}  // namespace bitlens
