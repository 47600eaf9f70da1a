// Golden cases of training by the kernels in use.
#pragma once

#include "../cpu/token_logprob.h"
#include "../cpu/weight_gradients.h"
#include "golden_kernels.h"

namespace bitlens::spec_tests {

inline void kernel_token_logprob(const Case& c, Output* out) {
  std::vector<float> logits = centered_floats(c, 0, static_cast<int64_t>(c.rows) * c.n);
  for (float& l : logits) l *= 20.0f;
  const std::vector<float> g = centered_floats(c, 2, c.rows);
  std::vector<float> logprob(g.size()), x_max(g.size()), z(g.size());
  std::vector<int64_t> ids;
  for (int row = 0; row < c.rows; ++row) ids.push_back(token_of(c, row));
  const float temperature = static_cast<float>(c.real);
  token_logprob(logits.data(), c.rows, c.n, ids.data(), temperature, logprob.data(), x_max.data(),
                z.data());
  token_logprob_backward(g.data(), logits.data(), c.rows, c.n, ids.data(), temperature,
                         x_max.data(), z.data(), logits.data());
  for (int64_t row = 0; row < c.rows; ++row) {
    out->value(logprob[static_cast<size_t>(row)]);
    out->floats(logits.data() + row * c.n, c.n);
  }
}

inline void kernel_weight_grad(const Case& c, Output* out) {
  const int64_t heads = c.op == Op::kNormWeightGrad ? c.k : 1;
  const int64_t starts[] = {0, second_sequence(c) / heads, c.rows / heads};
  const SequenceStarts sequences = {starts, 2};
  const int64_t inputs = c.op == Op::kLinearWeightGrad || c.op == Op::kEmbedGrad ? c.k : 1;
  std::vector<float> sums = centered_floats(c, 2, c.n * inputs);
  const Activations dy = centered_rows(c, 0, static_cast<int64_t>(c.rows) * c.n);
  const GradientRows rows = {dy.data(), dtype_of(c.act), c.n};
  if (c.op == Op::kLinearWeightGrad) {
    const Activations x = centered_rows(c, 1, static_cast<int64_t>(c.rows) * c.k);
    linear_weight_grad(rows, {x.data(), dtype_of(c.act), c.k}, sequences, sums.data());
  } else if (c.op == Op::kBiasGrad) {
    bias_grad(rows, sequences, sums.data());
  } else if (c.op == Op::kNormWeightGrad) {
    const std::vector<float> x = centered_floats(c, 1, static_cast<int64_t>(c.rows) * c.n);
    norm_weight_grad(rows, x.data(), heads, sequences, sums.data());
  } else {
    const std::vector<float> dresid = centered_floats(c, 0, static_cast<int64_t>(c.rows) * c.k);
    std::vector<int64_t> tokens;
    for (int row = 0; row < c.rows; ++row) tokens.push_back(token_of(c, row));
    embed_grad(dresid.data(), c.k, tokens.data(), static_cast<float>(c.real), sequences,
               sums.data());
  }
  out->floats(sums.data(), c.n * inputs);
}

}  // namespace bitlens::spec_tests
