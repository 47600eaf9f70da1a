#pragma once

#include <vector>

#include "linear.h"

namespace bitlens {

// Encoding with a dictionary: a product of which only the active features are kept. The outputs of
// the product exist for few rows and features at a time, with the bits that `linear` gives them, so
// that neither memory nor bits depend on how rows come in.

// x [m, k] and a bias [n] or null; weight [n, k] packed.
struct Encoded {
  const float* x;
  int64_t m;
  PackedMatrix weight;
  const float* bias;
};

// values, indices [m, selected]: the largest outputs of each row, as `top_k` of all of them.
void encode_top_k(const Encoded& op, int64_t selected, float* values, int32_t* indices);

// Outputs strictly above thresholds [n], row after row by ascending index.
struct ActiveFeatures {
  std::vector<int64_t> starts;  // m + 1: row r has entries starts[r] to starts[r + 1]
  std::vector<int32_t> indices;
  std::vector<float> values;
};
ActiveFeatures encode_above(const Encoded& op, const float* thresholds);

}  // namespace bitlens
