// Golden cases of cross entropy: which there are, and what the spec makes of one.
#pragma once

#include <vector>

#include "../spec/cross_entropy.h"
#include "golden_case.h"

namespace bitlens::spec_tests {

constexpr int64_t kIgnored = -100;

BL_FN float logit_of(const Case& c, int64_t i) {
  return spec::round_act(centered(stream(c.seed, 0), i) * 20.0f, c.act);
}

BL_FN int64_t target_of(const Case& c, int row) {
  if (c.flag != 0 && row % c.flag == 0) return kIgnored;
  return static_cast<int64_t>(word(stream(c.seed, 1), row) % static_cast<uint64_t>(c.n));
}

// The loss of every row, then their mean.
BL_FN void evaluate_cross_entropy(const Case& c, float* scratch, Sink* sink) {
  float* losses = scratch + c.n;
  int64_t count = 0;
  for (int row = 0; row < c.rows; ++row) {
    const int64_t target = target_of(c, row);
    for (int i = 0; i < c.n; ++i) scratch[i] = logit_of(c, static_cast<int64_t>(row) * c.n + i);
    losses[row] = target == kIgnored
                      ? 0.0f
                      : spec::cross_entropy(scratch, c.n, target, static_cast<float>(c.real));
    count += target != kIgnored;
  }
  put_all(sink, losses, c.rows);
  put(sink, spec::row_sum(losses, c.rows) / static_cast<float>(count));
}

inline void add_cross_entropy(std::vector<Case>* cases) {
  for (Format act : {Format::kF32, Format::kBF16}) {
    for (int n : {1, 17, 257, 1025}) {
      cases->push_back({.op = Op::kCrossEntropy, .act = act, .rows = 20, .n = n, .real = 0.0});
      cases->push_back(
          {.op = Op::kCrossEntropy, .act = act, .rows = 20, .n = n, .flag = 3, .real = 0.1});
    }
  }
  cases->push_back({.op = Op::kCrossEntropy, .rows = 300, .n = 3, .flag = 7, .real = 0.3});
}

}  // namespace bitlens::spec_tests
