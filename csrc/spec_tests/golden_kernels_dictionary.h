// Golden cases of dictionaries by the kernels in use.
#pragma once

#include "../cpu/dictionary.h"
#include "golden_kernels.h"

namespace bitlens::spec_tests {

inline void kernel_top_k(const Case& c, Output* out) {
  std::vector<float> x, values(static_cast<size_t>(c.k));
  std::vector<int32_t> indices(values.size());
  for (int64_t i = 0; i < c.n; ++i) x.push_back(top_k_input(c, i));
  top_k(x.data(), 1, c.n, c.k, values.data(), indices.data());
  for (size_t i = 0; i < values.size(); ++i) {
    out->value(values[i]);
    out->bits(static_cast<uint32_t>(indices[i]));
  }
}

inline void kernel_above(const Case& c, Output* out) {
  const std::vector<float> x = centered_floats(c, 0, c.n);
  std::vector<float> thresholds, values(x.size());
  std::vector<int32_t> indices(x.size());
  for (int64_t i = 0; i < c.n; ++i) thresholds.push_back(threshold_of(c, i));
  const int64_t count = kernels().dictionary.above(x.data(), thresholds.data(), c.n, 0,
                                                   values.data(), indices.data());
  out->bits(static_cast<uint32_t>(count));
  out->bits(0);
  for (int64_t i = 0; i < c.n; ++i) {
    out->value(i < count ? values[static_cast<size_t>(i)] : 0.0f);
    out->bits(i < count ? static_cast<uint32_t>(indices[static_cast<size_t>(i)]) : 0xffffffffu);
  }
}

inline void kernel_sparse_decode(const Case& c, Output* out) {
  const std::vector<float> coefs = centered_floats(c, 0, c.n);
  const std::vector<float> table = centered_floats(c, 2, static_cast<int64_t>(c.rows) * c.k);
  const std::vector<float> bias = centered_floats(c, 3, c.k);
  std::vector<int32_t> entries;
  for (int64_t i = 0; i < c.n; ++i) entries.push_back(entry_of(c, i));
  const int64_t starts[] = {0, c.n};
  std::vector<float> y(static_cast<size_t>(c.k));
  weighted_sums(coefs.data(), entries.data(), starts, 1, table.data(), c.rows, c.k,
                c.flag == 1 ? bias.data() : nullptr, y.data());
  out->floats(y.data(), c.k);
}

inline void kernel_dictionary_step(const Case& c, Output* out) {
  std::vector<float> w = centered_floats(c, 0, c.n), g = centered_floats(c, 1, c.n);
  std::vector<float> m = centered_floats(c, 2, c.n), v = centered_floats(c, 3, c.n);
  for (float& each : v) each = fabsf(each);
  unit_rows(w.data(), 1, c.n);
  project_rows(g.data(), w.data(), 1, c.n);
  out->floats(w.data(), c.n);
  out->floats(g.data(), c.n);
  const spec::AdamStep step = step_of(c);
  adam({step.beta1, step.one_minus_beta1, step.beta2, step.one_minus_beta2, step.step, step.v_scale,
        step.eps, step.clip, step.decay},
       g.data(), c.n, w.data(), m.data(), v.data());
  out->floats(w.data(), c.n);
  out->floats(m.data(), c.n);
  out->floats(v.data(), c.n);
}

}  // namespace bitlens::spec_tests
