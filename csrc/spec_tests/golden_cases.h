// Every golden case, evaluated by the spec. The same code runs on the host and in a CUDA kernel.
#pragma once

#include "../spec/activation.h"
#include "../spec/attention.h"
#include "../spec/embedding.h"
#include "../spec/fold.h"
#include "../spec/rms_norm.h"
#include "../spec/rope.h"
#include "../spec/soft_cap.h"
#include "../spec/stepwise.h"
#include "../spec/typical.h"
#include "golden_backward.h"
#include "golden_case.h"
#include "golden_cross_entropy.h"
#include "golden_dictionary.h"
#include "golden_training.h"

namespace bitlens::spec_tests {

// Row `row` of the case's weights, widened; `scratch` takes k floats for the stored bytes.
BL_FN void fill_weights(const Case& c, Stream s, int64_t row, float* scratch, float* w) {
  uint8_t* bytes = reinterpret_cast<uint8_t*>(scratch);
  fill_weight_row(c.format, s, row, c.k, bytes);
  for (int64_t i = 0; i < c.k; ++i) w[i] = spec::widen(c.format, bytes, i);
}

BL_FN void evaluate_widen(const Case& c, float* scratch, Sink* sink) {
  if (c.flag == 1) {
    for (uint32_t h = 0; h < 65536u; ++h) {
      const uint16_t half = static_cast<uint16_t>(h);
      put(sink, c.format == Format::kBF16 ? spec::widen_bf16(half) : spec::widen_fp16(half));
    }
    return;
  }
  for (int row = 0; row < c.rows; ++row) {
    fill_weights(c, stream(c.seed, 0), row, scratch, scratch + c.k);
    put_all(sink, scratch + c.k, c.k);
  }
}

BL_FN void evaluate_round(const Case& c, Sink* sink) {
  for (int64_t i = 0; i < c.n; ++i) {
    const uint32_t bits = (static_cast<uint32_t>(i) << c.flag) + static_cast<uint32_t>(c.position);
    const float x = spec::float_of(bits);
    put(sink, c.out == Format::kBF16 ? spec::widen_bf16(spec::round_bf16(x))
                                     : spec::widen_fp16(spec::round_fp16(x)));
  }
}

BL_FN float elementary_input(const Case& c, int64_t i) {
  const Stream s = stream(c.seed, 0);
  if (c.flag == 0) return spec::float_of(static_cast<uint32_t>(word(s, i) >> 32));
  if (c.flag == 1) return centered(s, i) * static_cast<float>(c.real);
  return spec::float_of(special_bits(static_cast<int>(i)));
}

BL_FN float elementary(const Case& c, float x) {
  if (c.op == Op::kExp) return spec::exp_f32(x);
  if (c.op == Op::kLog) return spec::log_f32(x);
  if (c.op == Op::kTanh) return spec::tanh_f32(x);
  return spec::soft_cap(x, static_cast<float>(c.k));
}

BL_FN void evaluate_elementary(const Case& c, Sink* sink) {
  for (int64_t i = 0; i < c.n; ++i) put(sink, elementary(c, elementary_input(c, i)));
}

BL_FN void evaluate_soft_cap_backward(const Case& c, Sink* sink) {
  const float cap = static_cast<float>(c.k);
  for (int i = 0; i < c.n; ++i) {
    const float x = centered(stream(c.seed, 0), i) * static_cast<float>(c.real);
    const float dy = centered(stream(c.seed, 1), i);
    put(sink, spec::soft_cap_backward(dy, spec::soft_cap(x, cap), cap));
  }
}

BL_FN void evaluate_linear(const Case& c, float* scratch, Sink* sink) {
  float* x = scratch;
  float* w = scratch + c.k;
  const int leaf = c.op == Op::kLinearOtherLeaf ? c.flag : spec::kLeaf;
  const bool has_bias = c.op == Op::kLinear && c.flag == 1;
  const bool pairs = (c.act == Format::kBF16) != (c.op == Op::kLinearOtherOrder);
  const spec::Order order = pairs ? spec::Order::kPairs : spec::Order::kChain;
  for (int row = 0; row < c.rows; ++row) {
    fill(x, c.k, stream(c.seed, 1), static_cast<int64_t>(row) * c.k, c.act);
    for (int i = 0; i < c.n; ++i) {
      fill_weights(c, stream(c.seed, 0), i, scratch + 2 * c.k, w);
      const float bias = centered(stream(c.seed, 2), i);
      float y = spec::dot_in_leaves(x, w, c.k, leaf, order);
      if (c.op == Op::kLinear)
        y = spec::linear(x, w, c.k, has_bias ? &bias : nullptr, order, c.out);
      put(sink, y);
    }
  }
}

BL_FN void evaluate_row_sum(const Case& c, float* scratch, Sink* sink) {
  fill(scratch, c.n, stream(c.seed, 0), 0, c.act);
  put(sink,
      c.op == Op::kRowSum ? spec::row_sum(scratch, c.n) : spec::row_sum_of_squares(scratch, c.n));
}

// Per row: x after the residual, scale, normalized, y.
BL_FN void evaluate_rms_norm(const Case& c, float* scratch, Sink* sink) {
  float* x = scratch;
  float* w = scratch + c.k;
  float* y = scratch + 2 * c.k;
  const Format x_format = c.flag & 2 ? Format::kF32 : c.act;
  fill(w, c.k, stream(c.seed, 0), 0, Format::kF32);
  for (int row = 0; row < c.rows; ++row) {
    const int64_t start = static_cast<int64_t>(row) * c.k;
    fill(x, c.k, stream(c.seed, 1), start, x_format);
    for (int i = 0; c.flag & 1 && i < c.k; ++i) {
      x[i] = spec::add(x[i], centered_act(stream(c.seed, 2), start + i, c.act), x_format);
    }
    const float scale = spec::rms_norm(x, w, c.k, static_cast<float>(c.real), c.act, y);
    for (int i = 0; c.op == Op::kStepwiseNorm && i < c.k; ++i) {
      y[i] = spec::stepwise_norm_weight(spec::normalize(x[i], scale), w[i], c.act);
    }
    put_all(sink, x, c.k);
    put(sink, scale);
    for (int i = 0; i < c.k; ++i) put(sink, spec::normalize(x[i], scale));
    put_all(sink, y, c.k);
  }
}

BL_FN void evaluate_add(const Case& c, Sink* sink) {
  for (int64_t i = 0; i < c.n; ++i) {
    const Format x_format = c.flag == 1 ? Format::kF32 : c.act;
    const float x = centered_act(stream(c.seed, 0), i, x_format);
    put(sink, spec::add(x, centered_act(stream(c.seed, 1), i, c.act), x_format));
  }
}

// inv_freq as low and high words, then all cos, then all sin.
BL_FN void evaluate_rope_table(const Case& c, float* scratch, Sink* sink) {
  const int half = c.k / 2;
  for (int j = 0; j < half; ++j) {
    const double inv_freq = spec::rope_inv_freq(c.real, j, c.k);
    const uint64_t bits = spec::bits_of_f64(inv_freq);
    put_bits(sink, static_cast<uint32_t>(bits));
    put_bits(sink, static_cast<uint32_t>(bits >> 32));
    spec::rope_table_entry(inv_freq, c.position, &scratch[j], &scratch[half + j]);
  }
  put_all(sink, scratch, c.k);
}

BL_FN void evaluate_rope(const Case& c, float* scratch, Sink* sink) {
  const int half = c.k / 2;
  float* x = scratch + c.k;
  for (int row = 0; row < c.rows; ++row) {
    for (int j = 0; j < half; ++j) {
      spec::rope_table_entry(spec::rope_inv_freq(c.real, j, c.k), c.position + row, &scratch[j],
                             &scratch[half + j]);
    }
    for (int head = 0; head < c.n; ++head) {
      const int64_t start = (static_cast<int64_t>(row) * c.n + head) * c.k;
      fill(x, c.k, stream(c.seed, 0), start, c.act);
      (c.op == Op::kRope ? spec::rope : spec::stepwise_rope)(x, scratch, scratch + half, c.k, c.act,
                                                             x + c.k);
      put_all(sink, x + c.k, c.k);
    }
  }
}

BL_FN bool poisons_masked_keys(const Case& c) { return c.flag % 2 == 1; }
BL_FN float score_cap(const Case& c) { return static_cast<float>(c.flag / 2); }

// Keys or values of all positions for one key-value head: row j of [position + 1, k].
BL_FN void fill_keys(const Case& c, Stream s, int head, float* rows) {
  const int64_t first = spec::first_visible(c.position, c.window);
  for (int64_t j = 0; j <= c.position; ++j) {
    for (int h = 0; h < c.k; ++h) {
      const bool poison = poisons_masked_keys(c) && j < first;
      rows[j * c.k + h] = poison ? spec::float_of(0x7fc00000u)
                                 : centered_act(s, (j * c.rows + head) * c.k + h, c.act);
    }
  }
}

// Per head: scores, pattern, z, lse. Queries are scaled by real.
BL_FN void evaluate_attention(const Case& c, float* scratch, Sink* sink) {
  const int64_t keys = c.position + 1;
  const float scale = 1.0f / sqrtf(static_cast<float>(c.k));
  float* q = scratch;
  float* z = q + c.k;
  float* k = z + c.k;
  float* v = k + keys * c.k;
  float* pattern = v + keys * c.k;
  for (int head = 0; head < c.n; ++head) {
    const int kv_head = head / (c.n / c.rows);
    fill_keys(c, stream(c.seed, 1), kv_head, k);
    fill_keys(c, stream(c.seed, 2), kv_head, v);
    for (int h = 0; h < c.k; ++h) {
      const float x = centered(stream(c.seed, 0), (c.position * c.n + head) * c.k + h);
      q[h] = spec::round_act(x * static_cast<float>(c.real), c.act);
    }
    spec::attention_scores(q, k, c.k, c.k, scale, score_cap(c), c.position, c.window, pattern);
    put_all(sink, pattern, keys);
    const float lse = spec::attention(q, k, c.k, v, c.k, c.k, scale, score_cap(c), c.position,
                                      c.window, c.act, pattern, z);
    put_all(sink, pattern, keys);
    put_all(sink, z, c.k);
    put(sink, lse);
  }
}

BL_FN void evaluate_gated_act(const Case& c, Sink* sink) {
  for (int i = 0; i < c.n; ++i) {
    float gate = centered(stream(c.seed, 0), i) * static_cast<float>(c.real);
    if (i < kSpecials) gate = spec::float_of(special_bits(i));
    gate = spec::round_act(gate, c.act);
    const float up = centered_act(stream(c.seed, 1), i, c.act);
    const float activated = c.flag == 0 ? spec::silu(gate) : spec::gelu_tanh(gate);
    put(sink, c.op == Op::kGatedAct ? spec::round_act(activated * up, c.act)
                                    : spec::stepwise_gated(activated, up, c.act));
  }
}

constexpr float kStepwiseScale = 0x1.279a74p-2f;  // 12^-1/2

BL_FN void evaluate_stepwise_score(const Case& c, Sink* sink) {
  for (int i = 0; i < c.n; ++i) {
    const float dot = centered(stream(c.seed, 0), i) * static_cast<float>(c.real);
    put(sink, spec::stepwise_score(dot, kStepwiseScale, c.act));
  }
}

// Inputs 20 * centered; softmax, then log-softmax, then logsumexp.
BL_FN void evaluate_softmax(const Case& c, float* scratch, Sink* sink) {
  for (int i = 0; i < c.n; ++i) {
    scratch[i] = centered(stream(c.seed, 0), i) * 20.0f;
    const bool masked = c.flag == 2 || (c.flag == 1 && i % 3 == 0);
    if (masked) scratch[i] = spec::float_of(0xff800000u);
    if (c.flag == 3 && i == c.n / 2) scratch[i] = spec::float_of(0x7fc00000u);
  }
  float* y = scratch + c.n;
  spec::softmax(scratch, c.n, y);
  put_all(sink, y, c.n);
  spec::log_softmax(scratch, c.n, y);
  put_all(sink, y, c.n);
  put(sink, spec::logsumexp(scratch, c.n));
}

BL_FN void evaluate_embedding(const Case& c, float* scratch, Sink* sink) {
  for (int row = 0; row < c.rows; ++row) {
    const int64_t token = static_cast<int64_t>(word(stream(c.seed, 1), row) % c.n);
    fill_weights(c, stream(c.seed, 0), token, scratch, scratch + c.k);
    for (int i = 0; i < c.k; ++i) {
      put(sink, spec::embedding(scratch[c.k + i], static_cast<float>(c.real), c.out));
    }
  }
}

BL_FN void put_u64(Sink* sink, uint64_t x) {
  put_bits(sink, static_cast<uint32_t>(x));
  put_bits(sink, static_cast<uint32_t>(x >> 32));
}

// Per token: order key, weight, score; the best logit counts as `real`.
BL_FN void evaluate_sampling(const Case& c, Sink* sink) {
  const float x_max = static_cast<float>(c.real);
  for (int i = 0; i < c.n; ++i) {
    const uint32_t id = static_cast<uint32_t>(c.k + i);
    const float x = centered(stream(c.seed, 0), i) * x_max;
    const spec::NoiseKey noise = {stream(c.seed, 1).key, static_cast<uint32_t>(c.position),
                                  static_cast<uint32_t>(c.flag), 0};
    put_u64(sink, spec::order_key(x, id));
    put_u64(sink, spec::weight(x, x_max));
    put_u64(sink, static_cast<uint64_t>(spec::score(x - x_max, spec::noise_bits(noise, id))));
  }
}

// The centre; per token, mass and number of tokens before it in typical order.
BL_FN void evaluate_typical(const Case& c, float* scratch, Sink* sink) {
  const float x_max = static_cast<float>(c.real);
  unsigned __int128 weighted_gaps = 0;
  uint64_t mass = 0;
  for (int i = 0; i < c.n; ++i) {
    scratch[i] = centered(stream(c.seed, 0), i) * x_max - x_max;
    const uint64_t weight = spec::weight(scratch[i], 0.0f);
    weighted_gaps += static_cast<unsigned __int128>(weight) * spec::gap(scratch[i]);
    mass += weight;
  }
  const uint32_t centre = spec::typical_centre(weighted_gaps, mass);
  put_bits(sink, centre);
  for (int i = 0; i < c.n; ++i) {
    const uint64_t key =
        spec::typical_key(spec::gap(scratch[i]), centre, static_cast<uint32_t>(c.k + i));
    uint64_t mass_before = 0;
    uint32_t before = 0;
    for (int j = 0; j < c.n; ++j) {
      const uint32_t gap = spec::gap(scratch[j]);
      if (spec::typical_key(gap, centre, static_cast<uint32_t>(c.k + j)) <= key) continue;
      mass_before += spec::weight(scratch[j], 0.0f);
      ++before;
    }
    put_u64(sink, mass_before);
    put_bits(sink, before);
  }
}

BL_FN spec::FoldRule fold_rule(const Case& c) {
  return {static_cast<spec::Aggregate>(c.flag), c.window, static_cast<float>(c.real)};
}

// The score after every token. Logits and values are in [-20, 20) and [-1, 1).
BL_FN void evaluate_fold(const Case& c, float* scratch, Sink* sink) {
  const spec::FoldRule rule = fold_rule(c);
  float* logits = scratch;
  float* values = logits + c.rows;
  float* state = values + c.rows;
  const float intercept = centered(stream(c.seed, 2), 0);
  for (int64_t t = 0; t < c.n; ++t) {
    for (int64_t h = 0; h < c.rows; ++h) {
      values[h] = centered(stream(c.seed, 0), t * c.rows + h);
      logits[h] = centered(stream(c.seed, 1), t * c.rows + h) * 20.0f;
    }
    put(sink, spec::fold_token(rule, t, c.rows, logits, values, intercept, state));
  }
}

// Floats of scratch space that evaluate() may use.
constexpr int64_t scratch_floats(const Case& c) {
  return (c.op == Op::kFold ? c.rows * (4 + c.window) : 0) + 6 * static_cast<int64_t>(c.k) +
         3 * static_cast<int64_t>(c.n) +
         (c.op == Op::kSparseDecode || c.op == Op::kCrossEntropy ? c.rows : 0) +
         (c.op >= Op::kTokenLogprob ? 3 * static_cast<int64_t>(c.rows) : 0) +
         (c.position + 1) * (c.op == Op::kAttention ? 2 * c.k + 1 : 0);
}

// Writes the case's outputs to words, returns how many.
BL_FN int64_t evaluate(const Case& c, float* scratch, uint32_t* words) {
  Sink sink = {words, 0};
  switch (c.op) {
    case Op::kWiden:
      evaluate_widen(c, scratch, &sink);
      break;
    case Op::kRound:
      evaluate_round(c, &sink);
      break;
    case Op::kExp:
    case Op::kLog:
    case Op::kTanh:
    case Op::kSoftCap:
      evaluate_elementary(c, &sink);
      break;
    case Op::kLinear:
    case Op::kLinearOtherLeaf:
    case Op::kLinearOtherOrder:
      evaluate_linear(c, scratch, &sink);
      break;
    case Op::kRowSum:
    case Op::kRowSumOfSquares:
      evaluate_row_sum(c, scratch, &sink);
      break;
    case Op::kRmsNorm:
    case Op::kStepwiseNorm:
      evaluate_rms_norm(c, scratch, &sink);
      break;
    case Op::kAdd:
      evaluate_add(c, &sink);
      break;
    case Op::kRopeTable:
      evaluate_rope_table(c, scratch, &sink);
      break;
    case Op::kRope:
    case Op::kStepwiseRope:
      evaluate_rope(c, scratch, &sink);
      break;
    case Op::kAttention:
      evaluate_attention(c, scratch, &sink);
      break;
    case Op::kGatedAct:
    case Op::kStepwiseGatedAct:
      evaluate_gated_act(c, &sink);
      break;
    case Op::kSoftmax:
      evaluate_softmax(c, scratch, &sink);
      break;
    case Op::kEmbedding:
      evaluate_embedding(c, scratch, &sink);
      break;
    case Op::kSampling:
      evaluate_sampling(c, &sink);
      break;
    case Op::kTypical:
      evaluate_typical(c, scratch, &sink);
      break;
    case Op::kScaled:
      evaluate_scaled(c, &sink);
      break;
    case Op::kNormalizeBackward:
      evaluate_normalize_backward(c, scratch, &sink);
      break;
    case Op::kRmsNormBackward:
      evaluate_rms_norm_backward(c, scratch, &sink);
      break;
    case Op::kSoftmaxBackward:
      evaluate_softmax_backward(c, scratch, &sink);
      break;
    case Op::kGatedActBackward:
      evaluate_gated_act_backward(c, &sink);
      break;
    case Op::kSoftCapBackward:
      evaluate_soft_cap_backward(c, &sink);
      break;
    case Op::kStepwiseScore:
      evaluate_stepwise_score(c, &sink);
      break;
    case Op::kFold:
      evaluate_fold(c, scratch, &sink);
      break;
    case Op::kTopK:
      evaluate_top_k(c, scratch, &sink);
      break;
    case Op::kAbove:
      evaluate_above(c, scratch, &sink);
      break;
    case Op::kSparseDecode:
      evaluate_sparse_decode(c, scratch, &sink);
      break;
    case Op::kDictionaryStep:
      evaluate_dictionary_step(c, scratch, &sink);
      break;
    case Op::kCrossEntropy:
      evaluate_cross_entropy(c, scratch, &sink);
      break;
    case Op::kTokenLogprob:
      evaluate_token_logprob(c, scratch, &sink);
      break;
    case Op::kLinearWeightGrad:
      evaluate_linear_weight_grad(c, scratch, &sink);
      break;
    case Op::kBiasGrad:
      evaluate_bias_grad(c, scratch, &sink);
      break;
    case Op::kNormWeightGrad:
      evaluate_norm_weight_grad(c, scratch, &sink);
      break;
    case Op::kEmbedGrad:
      evaluate_embed_grad(c, scratch, &sink);
      break;
  }
  return sink.count;
}

}  // namespace bitlens::spec_tests
