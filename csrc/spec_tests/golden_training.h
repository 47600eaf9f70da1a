// Golden cases of training: which there are, and what the spec makes of one.
#pragma once

#include <vector>

#include "../spec/token_logprob.h"
#include "../spec/weight_gradients.h"
#include "golden_case.h"

namespace bitlens::spec_tests {

// Where the second of two sequences begins.
BL_FN int64_t second_sequence(const Case& c) { return c.rows / 3; }

BL_FN int64_t token_of(const Case& c, int64_t row) {
  return static_cast<int64_t>(word(stream(c.seed, 1), row) % static_cast<uint64_t>(c.n));
}

// Every row's log-probability, then its gradient.
BL_FN void evaluate_token_logprob(const Case& c, float* scratch, Sink* sink) {
  const float t = spec::temperature_of(static_cast<float>(c.real));
  for (int row = 0; row < c.rows; ++row) {
    const int64_t token = token_of(c, row);
    for (int i = 0; i < c.n; ++i) {
      const int64_t at = static_cast<int64_t>(row) * c.n + i;
      scratch[i] = spec::scale_logit(centered(stream(c.seed, 0), at) * 20.0f, t);
    }
    const float x_max = spec::row_max(scratch, c.n);
    uint64_t total = 0;
    for (int i = 0; i < c.n; ++i) total += spec::weight(scratch[i], x_max);
    put(sink, spec::logprob(scratch[token], x_max, total));
    const float z = spec::partition_of(total), g = centered(stream(c.seed, 2), row);
    for (int i = 0; i < c.n; ++i) {
      const float p = spec::token_probability(scratch[i], x_max, z);
      put(sink, spec::logprob_gradient(g, p, i == token, t));
    }
  }
}

// Column `column` of dy, x or what stands for it, in `out`.
BL_FN void fill_column(const Case& c, int number, int64_t width, int64_t column, Format format,
                       float* out) {
  for (int64_t t = 0; t < c.rows; ++t)
    out[t] = centered_act(stream(c.seed, number), t * width + column, format);
}

// Both sequences, after a total that is there.
BL_FN float add_both(const Case& c, float total, const float* dy, const float* x) {
  const int64_t cut = second_sequence(c);
  if (x == nullptr) {
    total = spec::add_rows(total, dy, 1, cut);
    return spec::add_rows(total, dy + cut, 1, c.rows - cut);
  }
  total = spec::add_products(total, dy, 1, x, 1, cut, spec::kLeaf);
  return spec::add_products(total, dy + cut, 1, x + cut, 1, c.rows - cut, spec::kLeaf);
}

BL_FN void evaluate_linear_weight_grad(const Case& c, float* scratch, Sink* sink) {
  float* x = scratch + c.rows;
  for (int n = 0; n < c.n; ++n) {
    fill_column(c, 0, c.n, n, c.act, scratch);
    for (int k = 0; k < c.k; ++k) {
      fill_column(c, 1, c.k, k, c.act, x);
      put(sink, add_both(c, centered(stream(c.seed, 2), n * c.k + k), scratch, x));
    }
  }
}

BL_FN void evaluate_bias_grad(const Case& c, float* scratch, Sink* sink) {
  for (int n = 0; n < c.n; ++n) {
    fill_column(c, 0, c.n, n, c.act, scratch);
    put(sink, add_both(c, centered(stream(c.seed, 2), n), scratch, nullptr));
  }
}

// Rows are k heads of each position: the sequences are cut at positions, leaves hold 256 k rows.
BL_FN void evaluate_norm_weight_grad(const Case& c, float* scratch, Sink* sink) {
  float* x = scratch + c.rows;
  const int64_t cut = second_sequence(c) / c.k * c.k, leaf = spec::kLeaf * c.k;
  for (int n = 0; n < c.n; ++n) {
    fill_column(c, 0, c.n, n, c.act, scratch);
    fill_column(c, 1, c.n, n, Format::kF32, x);
    float total = centered(stream(c.seed, 2), n);
    total = spec::add_products(total, scratch, 1, x, 1, cut, leaf);
    put(sink, spec::add_products(total, scratch + cut, 1, x + cut, 1, c.rows - cut, leaf));
  }
}

BL_FN void evaluate_embed_grad(const Case& c, float* scratch, Sink* sink) {
  int64_t* tokens = reinterpret_cast<int64_t*>(scratch);
  float* dresid = scratch + 2 * c.rows;
  const int64_t cut = second_sequence(c);
  const float scale = static_cast<float>(c.real);
  for (int t = 0; t < c.rows; ++t) tokens[t] = token_of(c, t);
  for (int token = 0; token < c.n; ++token) {
    for (int k = 0; k < c.k; ++k) {
      fill_column(c, 0, c.k, k, Format::kF32, dresid);
      float total = centered(stream(c.seed, 2), token * c.k + k);
      total = spec::add_embedded(total, dresid, 1, tokens, token, scale, cut);
      put(sink,
          spec::add_embedded(total, dresid + cut, 1, tokens + cut, token, scale, c.rows - cut));
    }
  }
}

inline void add_training(std::vector<Case>* cases) {
  for (double temperature : {1.0, 0.7, 0.0}) {
    for (int n : {1, 17, 515, 1031})
      cases->push_back({.op = Op::kTokenLogprob, .rows = 3, .n = n, .real = temperature});
  }
  for (Format act : {Format::kF32, Format::kBF16}) {
    for (int rows : {1, 7, 255, 400, 800}) {
      cases->push_back({.op = Op::kLinearWeightGrad, .act = act, .rows = rows, .n = 13, .k = 37});
      cases->push_back({.op = Op::kBiasGrad, .act = act, .rows = rows, .n = 77});
      cases->push_back({.op = Op::kNormWeightGrad, .act = act, .rows = 3 * rows, .n = 67, .k = 3});
    }
    cases->push_back({.op = Op::kNormWeightGrad, .act = act, .rows = 800, .n = 81, .k = 1});
  }
  for (int rows : {1, 300, 800}) {
    for (double scale : {1.0, 25.25})
      cases->push_back({.op = Op::kEmbedGrad, .rows = rows, .n = 11, .k = 35, .real = scale});
  }
  cases->push_back({.op = Op::kDictionaryStep, .n = 259, .flag = 1, .real = 0.3});
}

}  // namespace bitlens::spec_tests
