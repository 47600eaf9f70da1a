// Gradients of weights as csrc/spec states them, in double, behind a C interface for ctypes.
// `starts` holds where each of `count` sequences begins, and the end of the last one.
#include "spec/token_logprob.h"
#include "spec/weight_gradients.h"

using namespace bitlens;

extern "C" {

// dW [n, k] of dy [rows, n] and x [rows, k].
void linear(const double* dy, int64_t n, const double* x, int64_t k, const int64_t* starts,
            int64_t count, double* sums) {
  for (int64_t i = 0; i < n * k; ++i) {
    for (int64_t s = 0; s < count; ++s)
      sums[i] =
          spec::add_products(sums[i], dy + starts[s] * n + i / k, n, x + starts[s] * k + i % k, k,
                             starts[s + 1] - starts[s], int64_t{spec::kLeaf});
  }
}

// dw [n] of dy and normalized [rows, n].
void norm(const double* dy, const double* normalized, int64_t n, const int64_t* starts,
          int64_t count, double* sums) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t s = 0; s < count; ++s)
      sums[i] =
          spec::add_products(sums[i], dy + starts[s] * n + i, n, normalized + starts[s] * n + i, n,
                             starts[s + 1] - starts[s], int64_t{spec::kLeaf});
  }
}

void bias(const double* dy, int64_t n, const int64_t* starts, int64_t count, double* sums) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t s = 0; s < count; ++s)
      sums[i] = spec::add_rows(sums[i], dy + starts[s] * n + i, n, starts[s + 1] - starts[s]);
  }
}

// dW [n, k] of dresid [rows, k].
void embed(const double* dresid, int64_t k, const int64_t* tokens, int64_t n, double scale,
           const int64_t* starts, int64_t count, double* sums) {
  for (int64_t i = 0; i < n * k; ++i) {
    for (int64_t s = 0; s < count; ++s)
      sums[i] = spec::add_embedded(sums[i], dresid + starts[s] * k + i % k, k, tokens + starts[s],
                                   i / k, scale, starts[s + 1] - starts[s]);
  }
}

// dlogits [rows, n] of dlogprob [rows].
void logprob(const double* dlogprob, const double* logits, int64_t rows, int64_t n,
             const int64_t* ids, double temperature, double* dlogits) {
  for (int64_t row = 0; row < rows; ++row, logits += n, dlogits += n) {
    double x_max = logits[0] / temperature, z = 0.0;
    for (int64_t i = 1; i < n; ++i) {
      const double x = logits[i] / temperature;
      x_max = x > x_max ? x : x_max;
    }
    for (int64_t i = 0; i < n; ++i) z += spec::exp_of(logits[i] / temperature - x_max);
    for (int64_t i = 0; i < n; ++i) {
      const double p = spec::token_probability(logits[i] / temperature, x_max, z);
      dlogits[i] = spec::logprob_gradient(dlogprob[row], p, i == ids[row], temperature);
    }
  }
}
}
