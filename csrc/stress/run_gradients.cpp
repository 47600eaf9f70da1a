#include <cstdint>
#include <vector>

#include "cpu/backward.h"
#include "cpu/loss.h"
#include "cpu/rows.h"
#include "cpu/token_logprob.h"
#include "cpu/weight_gradients.h"
#include "runs.h"

namespace bitlens {
void run_backward(Trace& trace, DType dtype) {
  Random random(23);
  const int64_t rows = 5, d = 300, count = rows * d;
  const std::vector<uint8_t> x = random.activations(count, dtype),
                             dy = random.activations(count, dtype),
                             up = random.activations(count, dtype);
  const std::vector<float> wide = random.floats(count), gradient = random.floats(count),
                           weight = random.floats(d), scale = {1.0f, 0.5f, 2.0f, 0.25f, 3.0f};
  std::vector<uint8_t> dx(x.size()), dup(x.size());
  rms_norm_backward({dy.data(), x.data(), weight.data(), d, 1e-5f, dtype, dtype, dx.data()}, rows);
  trace.add(dx);
  for (Activation kind : {Activation::SILU, Activation::GELU_TANH}) {
    gated_act_backward({kind, x.data(), up.data(), dy.data(), dtype, dx.data(), dup.data()}, count);
    trace.add(dx);
    trace.add(dup);
  }
  std::vector<float> result(wide.size()), dscale(rows);
  rms_norm_backward(
      {dy.data(), wide.data(), weight.data(), d, 1e-5f, DType::F32, dtype, result.data()}, rows);
  trace.add(result);
  for (DType out : {DType::F32, DType::BF16}) {
    scaled(x.data(), dtype, count, 0.3f, result.data(), out);
    trace.add(result);
  }
  normalize_backward(gradient.data(), wide.data(), scale.data(), rows, d, result.data(),
                     dscale.data());
  trace.add(result);
  rms_scale_backward(dscale.data(), wide.data(), scale.data(), rows, d, result.data());
  trace.add(result);
  softmax_backward(wide.data(), gradient.data(), rows, d, result.data());
  trace.add(result);
  soft_cap_backward(gradient.data(), wide.data(), count, 2.0f, result.data());
  trace.add(result);
}

void run_training(Trace& trace, DType dtype) {
  Random random(41);
  const int64_t rows = 300, n = 61, d = 37, starts[] = {0, 17, 17, rows};
  const SequenceStarts sequences = {starts, 3};
  const std::vector<uint8_t> dy = random.activations(rows * n, dtype),
                             x = random.activations(rows * d, dtype);
  const std::vector<float> wide = random.floats(rows * n);
  std::vector<float> matrix = random.floats(n * d), bias = random.floats(n), norm = bias;
  linear_weight_grad({dy.data(), dtype, n}, {x.data(), dtype, d}, sequences, matrix.data());
  bias_grad({dy.data(), dtype, n}, sequences, bias.data());
  norm_weight_grad({dy.data(), dtype, n}, wide.data(), 1, sequences, norm.data());
  trace.add(matrix), trace.add(bias), trace.add(norm);
  std::vector<int64_t> ids(rows);
  for (int64_t t = 0; t < rows; ++t) ids[t] = random.bits() % 13;
  std::vector<float> table = random.floats(13 * n), logprob(rows), x_max(rows), z(rows), out = wide;
  embed_grad(wide.data(), n, ids.data(), 0.5f, sequences, table.data());
  token_logprob(wide.data(), rows, n, ids.data(), 0.7f, logprob.data(), x_max.data(), z.data());
  token_logprob_backward(logprob.data(), wide.data(), rows, n, ids.data(), 0.7f, x_max.data(),
                         z.data(), out.data());
  trace.add(table), trace.add(logprob), trace.add(out);

  std::vector<double> terms(rows), losses(terms.size());
  for (double& term : terms) term = 40.0 * static_cast<double>(random.value());
  bounded_exp(terms.data(), rows, losses.data());
  trace.add(losses);
  softplus(terms.data(), rows, losses.data());
  trace.add(losses);
}

}  // namespace bitlens
