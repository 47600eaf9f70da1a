#pragma once

#include <cstdint>

namespace bitlens {

// csrc/spec/loss.h of `count` numbers.
void bounded_exp(const double* x, int64_t count, double* y);
void softplus(const double* x, int64_t count, double* y);

}  // namespace bitlens
