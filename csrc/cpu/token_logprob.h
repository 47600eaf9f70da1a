#pragma once

#include <cstdint>

namespace bitlens {

// Log-probabilities of tokens under rows of n fp32 logits, and their gradients;
// csrc/spec/token_logprob.h is their meaning. Rows are split over threads.

// out, x_max and z [rows]: the last two are what the gradient needs.
void token_logprob(const float* logits, int64_t rows, int64_t n, const int64_t* ids,
                   float temperature, float* out, float* x_max, float* z);

// dlogits [rows, n], which may be logits; dlogprob [rows].
void token_logprob_backward(const float* dlogprob, const float* logits, int64_t rows, int64_t n,
                            const int64_t* ids, float temperature, const float* x_max,
                            const float* z, float* dlogits);

}  // namespace bitlens
