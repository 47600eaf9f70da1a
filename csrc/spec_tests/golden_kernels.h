// Golden cases of weights and rows, evaluated by the kernels in use (csrc/cpu) instead of the
// scalar spec: the inputs are those of golden_cases.h, stored as checkpoints and caches store them.
#pragma once

#include <vector>

#include "../cpu/attention.h"
#include "../cpu/fold.h"
#include "../cpu/linear.h"
#include "../cpu/rows.h"
#include "golden_cases.h"

namespace bitlens::spec_tests {

using Words = std::vector<uint32_t>;

inline DType dtype_of(Format format) { return static_cast<DType>(format); }

// A buffer of activations in the dtype that a case names.
class Activations {
 public:
  Activations(int64_t count, Format act)
      : act_(act), bytes_(static_cast<size_t>(count) * dtype_bytes(dtype_of(act))) {}

  void set(int64_t i, float x) {
    if (act_ == Format::kF32) {
      memcpy(&bytes_[static_cast<size_t>(i) * 4], &x, 4);
    } else {
      const uint16_t half = spec::round_bf16(x);
      memcpy(&bytes_[static_cast<size_t>(i) * 2], &half, 2);
    }
  }

  float get(int64_t i) const { return spec::widen(act_, bytes_.data(), i); }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }

 private:
  Format act_;
  std::vector<uint8_t> bytes_;
};

inline Activations centered_rows(const Case& c, uint64_t number, int64_t count, double scale,
                                 Format format) {
  Activations x(count, format);
  for (int64_t i = 0; i < count; ++i) {
    x.set(i, centered(stream(c.seed, number), i) * static_cast<float>(scale));
  }
  return x;
}

inline Activations centered_rows(const Case& c, uint64_t number, int64_t count, double scale = 1) {
  return centered_rows(c, number, count, scale, c.act);
}

inline std::vector<float> centered_floats(const Case& c, uint64_t number, int64_t count) {
  std::vector<float> x(static_cast<size_t>(count));
  fill(x.data(), count, stream(c.seed, number), 0, Format::kF32);
  return x;
}

// Appends outputs as the spec's Sink does.
class Output {
 public:
  void bits(uint32_t word) { words.push_back(word); }
  void bits64(uint64_t word) {
    bits(static_cast<uint32_t>(word));
    bits(static_cast<uint32_t>(word >> 32));
  }
  void value(float x) { bits(x != x ? 0x7fc00000u : spec::bits_of(x)); }
  void floats(const float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) value(x[i]);
  }
  void activations(const Activations& x, int64_t begin, int64_t n) {
    for (int64_t i = begin; i < begin + n; ++i) value(x.get(i));
  }
  Words words;
};

// The case's weights, `n` rows of `k`, in panels.
class Panels {
 public:
  Panels(const Case& c, int64_t n) : Panels(c.format, stored(c, n), n, c.k) {}
  Panels(Format format, const std::vector<uint8_t>& rows, int64_t n, int64_t k)
      : format_(static_cast<bitlens::Format>(format)), n_(n), k_(k) {
    bytes_.resize(static_cast<size_t>(packed_bytes(format_, n, k)));
    pack(format_, rows.data(), n, k, bytes_.data());
  }
  PackedMatrix matrix() const { return {bytes_.data(), format_, n_, k_}; }

 private:
  static std::vector<uint8_t> stored(const Case& c, int64_t n) {
    const int64_t size = spec::row_bytes(c.format, c.k);
    std::vector<uint8_t> rows(static_cast<size_t>(n * size));
    for (int64_t i = 0; i < n; ++i) {
      fill_weight_row(c.format, stream(c.seed, 0), i, c.k, rows.data() + i * size);
    }
    return rows;
  }

  bitlens::Format format_;
  int64_t n_, k_;
  std::vector<uint8_t> bytes_;
};

inline void kernel_widen(const Case& c, Output* out) {
  std::vector<uint8_t> patterns;
  for (uint32_t h = 0; c.flag == 1 && h < 65536u; ++h) {
    patterns.push_back(static_cast<uint8_t>(h));
    patterns.push_back(static_cast<uint8_t>(h >> 8));
  }
  const Panels panels = c.flag == 1 ? Panels(c.format, patterns, c.rows, c.k) : Panels(c, c.rows);
  std::vector<float> rows(static_cast<size_t>(c.rows * c.k));
  unpack_rows(panels.matrix(), 0, c.rows, rows.data());
  out->floats(rows.data(), c.rows * c.k);
}

// An embedding by 1 copies fp32 values and rounds them to bf16.
inline void kernel_round(const Case& c, Output* out) {
  constexpr int64_t kRow = 64;
  std::vector<uint8_t> table(static_cast<size_t>(c.n) * 4);
  for (int64_t i = 0; i < c.n; ++i) {
    const uint32_t bits = (static_cast<uint32_t>(i) << c.flag) + static_cast<uint32_t>(c.position);
    memcpy(&table[static_cast<size_t>(i) * 4], &bits, 4);
  }
  const Panels panels(Format::kF32, table, c.n / kRow, kRow);
  std::vector<int64_t> tokens;
  for (int64_t row = 0; row < c.n / kRow; ++row) tokens.push_back(row);
  Activations rounded(c.n, c.out);
  embedding(tokens.data(), c.n / kRow, panels.matrix(), 1.0f, rounded.data(), dtype_of(c.out));
  out->activations(rounded, 0, c.n);
}

inline void kernel_embedding(const Case& c, Output* out) {
  const Panels panels(c, c.n);
  std::vector<int64_t> tokens;
  for (int row = 0; row < c.rows; ++row) {
    tokens.push_back(static_cast<int64_t>(word(stream(c.seed, 1), row) % c.n));
  }
  Activations rows(c.rows * c.k, c.out);
  embedding(tokens.data(), c.rows, panels.matrix(), static_cast<float>(c.real), rows.data(),
            dtype_of(c.out));
  out->activations(rows, 0, c.rows * c.k);
}

inline void kernel_elementary(const Case& c, Output* out) {
  std::vector<float> x, y(static_cast<size_t>(c.n));
  for (int i = 0; i < c.n; ++i) x.push_back(elementary_input(c, i));
  if (c.op == Op::kExp) bitlens::exp(x.data(), c.n, y.data());
  if (c.op == Op::kLog) bitlens::log(x.data(), c.n, y.data());
  if (c.op == Op::kTanh) bitlens::tanh(x.data(), c.n, y.data());
  if (c.op == Op::kSoftCap) soft_cap(x.data(), c.n, static_cast<float>(c.k), y.data());
  out->floats(y.data(), c.n);
}

inline void kernel_soft_cap_backward(const Case& c, Output* out) {
  std::vector<float> x = centered_floats(c, 0, c.n), dx(x.size());
  const std::vector<float> dy = centered_floats(c, 1, c.n);
  const float cap = static_cast<float>(c.k);
  for (float& v : x) v *= static_cast<float>(c.real);
  soft_cap(x.data(), c.n, cap, x.data());
  soft_cap_backward(dy.data(), x.data(), c.n, cap, dx.data());
  out->floats(dx.data(), c.n);
}

inline void kernel_linear(const Case& c, Output* out) {
  const Panels panels(c, c.n);
  const Activations x = centered_rows(c, 1, c.rows * c.k);
  const std::vector<float> bias = centered_floats(c, 2, c.n);
  const bool has_bias = c.op == Op::kLinear && c.flag == 1;
  Activations y(c.rows * c.n, c.out);
  const LinearOutput to = {panels.matrix(), has_bias ? bias.data() : nullptr, y.data(),
                           dtype_of(c.out), c.n};
  linear(x.data(), dtype_of(c.act), c.rows, c.k, c.k, &to, 1);
  out->activations(y, 0, c.rows * c.n);
}

inline void kernel_rms_norm(const Case& c, Output* out) {
  const int64_t count = c.rows * c.k;
  const Format x_format = c.flag & 2 ? Format::kF32 : c.act;
  const Activations x = centered_rows(c, 1, count, 1, x_format),
                    residual = centered_rows(c, 2, count);
  const std::vector<float> weight = centered_floats(c, 0, c.k);
  Activations y(count, c.act), sum = x;
  std::vector<float> scale(static_cast<size_t>(c.rows)), normalized(static_cast<size_t>(count));
  const bool adds = c.flag & 1;
  rms_norm(
      {x.data(), c.k, adds ? residual.data() : nullptr, weight.data(), 1, c.k,
       static_cast<float>(c.real), dtype_of(x_format), dtype_of(c.act), y.data(), c.k,
       adds ? sum.data() : nullptr, scale.data(), normalized.data(), c.op == Op::kStepwiseNorm},
      c.rows);
  for (int64_t row = 0; row < c.rows; ++row) {
    out->activations(sum, row * c.k, c.k);
    out->value(scale[static_cast<size_t>(row)]);
    out->floats(normalized.data() + row * c.k, c.k);
    out->activations(y, row * c.k, c.k);
  }
}

inline void kernel_add(const Case& c, Output* out) {
  const Format x_format = c.flag == 1 ? Format::kF32 : c.act;
  const Activations x = centered_rows(c, 0, c.n, 1, x_format), y = centered_rows(c, 1, c.n);
  Activations sum(c.n, x_format);
  add(x.data(), dtype_of(x_format), y.data(), dtype_of(c.act), c.n, sum.data());
  out->activations(sum, 0, c.n);
}

inline void kernel_rope(const Case& c, Output* out) {
  const int64_t half = c.k / 2, stride = static_cast<int64_t>(c.n) * c.k;
  const Activations x = centered_rows(c, 0, c.rows * stride);
  std::vector<float> cos(static_cast<size_t>(c.rows * half)), sin(cos.size());
  std::vector<int64_t> positions;
  for (int64_t row = 0; row < c.rows; ++row) {
    positions.push_back(row);
    for (int64_t j = 0; j < half; ++j) {
      const double inv_freq = spec::rope_inv_freq(c.real, static_cast<int>(j), c.k);
      spec::rope_table_entry(inv_freq, c.position + row, &cos[static_cast<size_t>(row * half + j)],
                             &sin[static_cast<size_t>(row * half + j)]);
    }
  }
  Activations y(c.rows * stride, c.act);
  rope({x.data(), dtype_of(c.act), c.n, c.k, stride, positions.data(), cos.data(), sin.data(),
        y.data(), stride, c.op == Op::kStepwiseRope},
       c.rows, c.rows);
  out->activations(y, 0, c.rows * stride);
}

inline void kernel_gated_act(const Case& c, Output* out) {
  Activations gate = centered_rows(c, 0, c.n, c.real), y(c.n, c.act);
  const Activations up = centered_rows(c, 1, c.n);
  for (int i = 0; i < kSpecials; ++i) gate.set(i, spec::float_of(special_bits(i)));
  gated_act({static_cast<Activation>(c.flag), gate.data(), up.data(), c.n, c.n, c.n,
             dtype_of(c.act), y.data(), c.n, c.op == Op::kStepwiseGatedAct},
            1);
  out->activations(y, 0, c.n);
}

inline void kernel_stepwise_score(const Case& c, Output* out) {
  std::vector<float> x = centered_floats(c, 0, c.n);
  for (float& v : x) v *= static_cast<float>(c.real);
  Activations y(c.n, c.act);
  scale_scores(x.data(), kStepwiseScale, c.n, dtype_of(c.act), y.data());
  out->activations(y, 0, c.n);
}

// In two calls, the second from the first one's state.
inline void kernel_fold(const Case& c, Output* out) {
  const std::vector<float> values = centered_floats(c, 0, c.n * c.rows);
  std::vector<float> logits = centered_floats(c, 1, c.n * c.rows);
  for (float& l : logits) l *= 20.0f;
  const spec::FoldRule rule = fold_rule(c);
  std::vector<float> state(static_cast<size_t>(c.rows * spec::fold_state_floats(rule))),
      scores(static_cast<size_t>(c.n));
  const float intercept = centered(stream(c.seed, 2), 0);
  const int64_t parts[] = {0, c.n / 3, c.n};
  int64_t seen = 0;
  for (int part = 0; part < 2; ++part) {
    const int64_t begin = parts[part], starts[] = {0, parts[part + 1] - begin};
    const FoldedTokens tokens = {values.data() + begin * c.rows, logits.data() + begin * c.rows,
                                 starts, 1, c.rows};
    fold_scores(rule, tokens, intercept, &seen, state.data(), scores.data() + begin);
  }
  out->floats(scores.data(), c.n);
}

inline void kernel_cross_entropy(const Case& c, Output* out) {
  Activations x(static_cast<int64_t>(c.rows) * c.n, c.act);
  for (int64_t i = 0; i < static_cast<int64_t>(c.rows) * c.n; ++i) x.set(i, logit_of(c, i));
  std::vector<int64_t> targets;
  for (int row = 0; row < c.rows; ++row) targets.push_back(target_of(c, row));
  std::vector<float> losses(targets.size());
  float mean = 0;
  cross_entropy({x.data(), targets.data(), c.n, dtype_of(c.act), kIgnored,
                 static_cast<float>(c.real), losses.data()},
                c.rows, &mean);
  out->floats(losses.data(), c.rows);
  out->value(mean);
}

inline void kernel_softmax(const Case& c, Output* out) {
  std::vector<float> x = centered_floats(c, 0, c.n), y(x.size());
  for (int i = 0; i < c.n; ++i) {
    float& at = x[static_cast<size_t>(i)];
    at *= 20.0f;
    if (c.flag == 2 || (c.flag == 1 && i % 3 == 0)) at = spec::float_of(0xff800000u);
    if (c.flag == 3 && i == c.n / 2) at = spec::float_of(0x7fc00000u);
  }
  softmax(x.data(), 1, c.n, y.data());
  out->floats(y.data(), c.n);
  log_softmax(x.data(), 1, c.n, y.data());
  out->floats(y.data(), c.n);
  float sum = 0;
  logsumexp(x.data(), 1, c.n, &sum);
  out->value(sum);
}

}  // namespace bitlens::spec_tests
