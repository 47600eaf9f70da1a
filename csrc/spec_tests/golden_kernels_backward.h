// Golden cases of gradients, evaluated by the kernels in use.
#pragma once

#include "../cpu/backward.h"
#include "golden_kernels.h"

namespace bitlens::spec_tests {

inline void kernel_scaled(const Case& c, Output* out) {
  const Activations x = centered_rows(c, 0, c.n);
  Activations y(c.n, c.out);
  scaled(x.data(), dtype_of(c.act), c.n, static_cast<float>(c.real), y.data(), dtype_of(c.out));
  out->activations(y, 0, c.n);
}

inline void kernel_normalize_backward(const Case& c, Output* out) {
  const int64_t count = static_cast<int64_t>(c.rows) * c.k;
  const std::vector<float> x = centered_floats(c, 0, count), dn = centered_floats(c, 1, count);
  std::vector<float> scale(static_cast<size_t>(c.rows)), dscale(scale.size()), dx(x.size()),
      dx_of_scale(x.size());
  rms_norm({x.data(), c.k, nullptr, nullptr, 1, c.k, static_cast<float>(c.real), DType::F32,
            DType::F32, nullptr, c.k, nullptr, scale.data(), nullptr},
           c.rows);
  normalize_backward(dn.data(), x.data(), scale.data(), c.rows, c.k, dx.data(), dscale.data());
  rms_scale_backward(dscale.data(), x.data(), scale.data(), c.rows, c.k, dx_of_scale.data());
  for (int64_t row = 0; row < c.rows; ++row) {
    out->value(dscale[static_cast<size_t>(row)]);
    out->floats(dx.data() + row * c.k, c.k);
    out->floats(dx_of_scale.data() + row * c.k, c.k);
  }
}

inline void kernel_rms_norm_backward(const Case& c, Output* out) {
  const int64_t count = static_cast<int64_t>(c.rows) * c.k;
  const std::vector<float> weight = centered_floats(c, 0, c.k);
  const Format x_format = c.flag == 1 ? Format::kF32 : c.act;
  const Activations x = centered_rows(c, 1, count, 1, x_format), dy = centered_rows(c, 2, count);
  Activations dx(count, x_format);
  rms_norm_backward({dy.data(), x.data(), weight.data(), c.k, static_cast<float>(c.real),
                     dtype_of(x_format), dtype_of(c.act), dx.data()},
                    c.rows);
  out->activations(dx, 0, count);
}

inline void kernel_softmax_backward(const Case& c, Output* out) {
  std::vector<float> p(static_cast<size_t>(c.n)), ds(p.size());
  for (int i = 0; i < c.n; ++i) p[static_cast<size_t>(i)] = score_of(c, i);
  const std::vector<float> dp = centered_floats(c, 1, c.n);
  softmax(p.data(), 1, c.n, p.data());
  softmax_backward(p.data(), dp.data(), 1, c.n, ds.data());
  out->floats(ds.data(), c.n);
}

inline void kernel_gated_act_backward(const Case& c, Output* out) {
  Activations gate(c.n, c.act), dgate(c.n, c.act), dup(c.n, c.act);
  for (int i = 0; i < c.n; ++i) gate.set(i, gate_of(c, i));
  const Activations up = centered_rows(c, 1, c.n), dpost = centered_rows(c, 2, c.n);
  gated_act_backward({static_cast<Activation>(c.flag), gate.data(), up.data(), dpost.data(),
                      dtype_of(c.act), dgate.data(), dup.data()},
                     c.n);
  for (int64_t i = 0; i < c.n; ++i) {
    out->activations(dgate, i, 1);
    out->activations(dup, i, 1);
  }
}

}  // namespace bitlens::spec_tests
