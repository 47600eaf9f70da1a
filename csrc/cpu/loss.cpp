#include "loss.h"

#include "../spec/loss.h"
#include "float_environment.h"

namespace bitlens {

void bounded_exp(const double* x, int64_t count, double* y) {
  const FloatEnvironment environment;
  for (int64_t i = 0; i < count; ++i) y[i] = spec::bounded_exp(x[i]);
}

void softplus(const double* x, int64_t count, double* y) {
  const FloatEnvironment environment;
  for (int64_t i = 0; i < count; ++i) y[i] = spec::softplus(x[i]);
}

}  // namespace bitlens
