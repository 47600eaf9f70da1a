// Golden cases of dictionaries: their inputs, and their outputs by the spec.
#pragma once

#include "../spec/dictionary.h"
#include "golden_case.h"

namespace bitlens::spec_tests {

BL_FN float top_k_input(const Case& c, int64_t i) {
  const float x = centered(stream(c.seed, 0), i);
  if (c.flag == 1) return floorf(4.0f * x) * 0.25f;
  return c.flag == 2 && i % 3 == 0 ? spec::float_of(0x7fc00000u) : x;
}

BL_FN float threshold_of(const Case& c, int64_t i) {
  if (c.flag == 1 && i % 2 == 0) return centered(stream(c.seed, 0), i);
  return centered(stream(c.seed, 1), i);
}

BL_FN int32_t entry_of(const Case& c, int64_t i) {
  const uint64_t choice = word(stream(c.seed, 1), i) % static_cast<uint64_t>(c.rows + 1);
  return static_cast<int32_t>(choice) - 1;
}

BL_FN spec::AdamStep step_of(const Case& c) {
  const float decay = c.flag == 1 ? 0.99f : 1.0f;
  return {0.9f, 0.1f, 0.999f, 0.001f, 1e-3f, 1.5f, 1e-8f, static_cast<float>(c.real), decay};
}

// Selected values and indices, in turn.
BL_FN void evaluate_top_k(const Case& c, float* scratch, Sink* sink) {
  for (int64_t i = 0; i < c.n; ++i) scratch[i] = top_k_input(c, i);
  float* values = scratch + c.n;
  int32_t* indices = reinterpret_cast<int32_t*>(values + c.k);
  spec::top_k(scratch, c.n, c.k, values, indices);
  for (int64_t i = 0; i < c.k; ++i) {
    put(sink, values[i]);
    put_bits(sink, static_cast<uint32_t>(indices[i]));
  }
}

// How many, and 0; then values and indices in turn, 0 and -1 where there are no more.
BL_FN void evaluate_above(const Case& c, float* scratch, Sink* sink) {
  float* thresholds = scratch + c.n;
  for (int64_t i = 0; i < c.n; ++i) {
    scratch[i] = centered(stream(c.seed, 0), i);
    thresholds[i] = threshold_of(c, i);
  }
  // Entries are found in ascending order, so they may overwrite what has been looked at.
  int32_t* indices = reinterpret_cast<int32_t*>(thresholds + c.n);
  const int64_t count = spec::above(scratch, thresholds, c.n, scratch, indices);
  put_bits(sink, static_cast<uint32_t>(count));
  put_bits(sink, 0);
  for (int64_t i = 0; i < c.n; ++i) {
    put(sink, i < count ? scratch[i] : 0.0f);
    put_bits(sink, i < count ? static_cast<uint32_t>(indices[i]) : 0xffffffffu);
  }
}

BL_FN void evaluate_sparse_decode(const Case& c, float* scratch, Sink* sink) {
  int32_t* rows = reinterpret_cast<int32_t*>(scratch + c.n);
  float* column = scratch + 2 * c.n;
  for (int64_t i = 0; i < c.n; ++i) {
    scratch[i] = centered(stream(c.seed, 0), i);
    rows[i] = entry_of(c, i);
  }
  for (int64_t j = 0; j < c.k; ++j) {
    for (int64_t r = 0; r < c.rows; ++r) column[r] = centered(stream(c.seed, 2), r * c.k + j);
    const float bias = centered(stream(c.seed, 3), j);
    put(sink, spec::weighted_sum(scratch, rows, c.n, column, 1, c.flag == 1 ? &bias : nullptr));
  }
}

// The unit row, the projected gradient, then p, m and v.
BL_FN void evaluate_dictionary_step(const Case& c, float* scratch, Sink* sink) {
  float* w = scratch;
  float* g = w + c.n;
  fill(w, c.n, stream(c.seed, 0), 0, Format::kF32);
  fill(g, c.n, stream(c.seed, 1), 0, Format::kF32);
  spec::unit_row(w, c.n);
  put_all(sink, w, c.n);
  spec::project_row(g, w, c.n);
  put_all(sink, g, c.n);
  // Three passes, one an output, since scratch holds few rows.
  for (int output = 0; output < 3; ++output) {
    for (int64_t i = 0; i < c.n; ++i) {
      float p = w[i], m = centered(stream(c.seed, 2), i);
      float v = fabsf(centered(stream(c.seed, 3), i));
      spec::adam(step_of(c), g[i], &p, &m, &v);
      put(sink, output == 0 ? p : output == 1 ? m : v);
    }
  }
}

}  // namespace bitlens::spec_tests
