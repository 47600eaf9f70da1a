// A golden case: what is computed of which inputs, and where its outputs go.
#pragma once

#include "golden_inputs.h"

namespace bitlens::spec_tests {

enum class Op : int {
  kWiden,            // rows x k stored weights; flag 1: all 65536 16-bit patterns
  kRound,            // to `out`: n inputs, bits (i << flag) + position
  kExp,              // n inputs; flag 0: random bits, 1: real * centered, 2: specials
  kLog,              // as kExp
  kLinear,           // rows x k activations, n outputs, flag 1: bias
  kLinearOtherLeaf,  // as kLinear with leaves of `flag`: must differ
  kRowSum,           // n elements
  kRowSumOfSquares,  // n elements
  kRmsNorm,          // rows x k, eps = real, flag + 1: residual, + 2: x is fp32
  kAdd,              // n elements, flag 1: x and the sum are fp32
  kRopeTable,        // d_head k, theta real, one position
  kRope,             // rows at position, position + 1, ...; n heads of k
  kAttention,        // n heads, rows = key-value heads, d_head k; flag: 2 * cap of the scores,
                     // + 1 for NaN in masked keys
  kGatedAct,         // n elements, flag 0 silu, 1 gelu; gates scaled by real, specials first
  kSoftmax,          // n columns; flag 1: every third -inf, 2: all -inf, 3: one NaN
  kEmbedding,        // rows tokens of a table n x k, scaled by real
  kSampling,         // n logits of a row, scaled by real; draw flag; first id k
  kTypical,          // n logits of a row, scaled by real < 15.5; first id k
  kTanh,             // as kExp
  kSoftCap,          // as kExp, cap k
  // Gradients:
  kScaled,             // n elements from act to out, times real
  kNormalizeBackward,  // rows x k, with that of the scale; eps = real
  kRmsNormBackward,    // rows x k, eps = real, flag 1: x and dx are fp32
  kSoftmaxBackward,    // n columns; flag 1: every third masked
  kGatedActBackward,   // as kGatedAct
  kSoftCapBackward,    // n elements, cap k, scaled by real
  // Every step rounded:
  kStepwiseNorm,  // as kRmsNorm, kRope and kGatedAct
  kStepwiseRope,
  kStepwiseGatedAct,
  kStepwiseScore,  // n dot products in [-real, real), scaled by 12^-1/2
  // Probes:
  kFold,  // n tokens of `rows` heads, aggregate flag, weight = real
  // Dictionaries:
  kTopK,            // k of n; flag 1: multiples of 1/4, so ties; 2: every third is NaN
  kAbove,           // n; flag 1: every second meets its threshold exactly
  kSparseDecode,    // n entries of a table rows x k, index -1 among them; flag 1: bias
  kDictionaryStep,  // a row of n: unit_row, project_row, Adam with clip = real; flag 1: decay
  // Losses:
  kCrossEntropy,  // rows x n logits in act, every flag-th target ignored, smoothing real
  // Training:
  kTokenLogprob,      // rows x n logits, temperature real: ln p of a token and its gradient
  kLinearWeightGrad,  // rows of dy [n] and x [k] in act: sequences of rows / 3 and the rest
  kBiasGrad,          // rows of dy [n] in act, sequences as above
  kNormWeightGrad,    // rows of dy [n] in act and fp32 normalized [n], `k` a position
  kEmbedGrad,         // rows of dresid [k] by tokens of n, scaled by real
  kLinearOtherOrder,  // as kLinear in the order of the other dtype of activations: must differ
};

constexpr bool is_linear_control(Op op) {
  return op == Op::kLinearOtherLeaf || op == Op::kLinearOtherOrder;
}

struct Case {
  Op op;
  Format format = Format::kF32;  // of weights
  Format act = Format::kF32;     // of activations
  Format out = Format::kF32;
  int rows = 1;
  int n = 1;
  int k = 1;
  int flag = 0;
  int64_t position = 0;
  int64_t window = 0;
  double real = 1.0;
  uint64_t seed = 0;
};

// Output words in order; every NaN counts as one value.
struct Sink {
  uint32_t* words;
  int64_t count;
};

BL_FN void put_bits(Sink* sink, uint32_t bits) { sink->words[sink->count++] = bits; }

BL_FN void put(Sink* sink, float x) { put_bits(sink, x != x ? 0x7fc00000u : spec::bits_of(x)); }

BL_FN void put_all(Sink* sink, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) put(sink, x[i]);
}

BL_FN void fill(float* x, int64_t n, Stream s, int64_t start, Format act) {
  for (int64_t i = 0; i < n; ++i) x[i] = centered_act(s, start + i, act);
}

}  // namespace bitlens::spec_tests
