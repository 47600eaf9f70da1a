#pragma once

#include "training_kernels.h"

namespace bitlens {

// Gradients of weights, added to sums that go on from call to call; csrc/spec/weight_gradients.h is
// their meaning. Threads take entries of the gradient, never positions.

// Rows of `width` values, in sequences from starts[i] to starts[i + 1].
struct GradientRows {
  const void* data;
  DType dtype;
  int64_t width;
};
struct SequenceStarts {
  const int64_t* starts;
  int64_t count;
};

// sums [dy.width, x.width].
void linear_weight_grad(const GradientRows& dy, const GradientRows& x,
                        const SequenceStarts& sequences, float* sums);

// sums [dy.width].
void bias_grad(const GradientRows& dy, const SequenceStarts& sequences, float* sums);

// sums [dy.width]; each position has `heads` rows of dy and of normalized.
void norm_weight_grad(const GradientRows& dy, const float* normalized, int64_t heads,
                      const SequenceStarts& sequences, float* sums);

// sums [vocabulary, d] from dresid [positions, d]; tokens lie in the vocabulary.
void embed_grad(const float* dresid, int64_t d, const int64_t* tokens, float scale,
                const SequenceStarts& sequences, float* sums);

}  // namespace bitlens
