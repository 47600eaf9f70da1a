// How a golden case is written as a line of text. Host only.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "golden_cases.h"

namespace bitlens::spec_tests {

constexpr int kSampleWords = 8;

inline const char* name_of(Op op) {
  constexpr const char* kNames[] = {
      "widen",
      "round",
      "exp",
      "log",
      "linear",
      "linear_other_leaf",
      "row_sum",
      "row_sum_squares",
      "rms_norm",
      "add",
      "rope_table",
      "rope",
      "attention",
      "gated_act",
      "softmax",
      "embedding",
      "sampling",
      "typical",
      "tanh",
      "soft_cap",
      "scaled",
      "normalize_backward",
      "rms_norm_backward",
      "softmax_backward",
      "gated_act_backward",
      "soft_cap_backward",
      "stepwise_rms_norm",
      "stepwise_rope",
      "stepwise_gated_act",
      "stepwise_score",
      "fold",
      "top_k",
      "above",
      "sparse_decode",
      "dictionary_step",
      "cross_entropy",
      "token_logprob",
      "linear_weight_grad",
      "bias_grad",
      "norm_weight_grad",
      "embed_grad",
      "linear_other_order",
  };
  return kNames[static_cast<int>(op)];
}

inline const char* name_of(Format format) {
  constexpr const char* kNames[] = {"f32", "bf16", "f16", "q8_0", "q4_0", "q4_1"};
  return kNames[static_cast<int>(format)];
}

inline int64_t output_words(const Case& c) {
  const int64_t rows = c.rows;
  switch (c.op) {
    case Op::kWiden:
      return c.flag == 1 ? 65536 : rows * c.k;
    case Op::kLinear:
    case Op::kLinearOtherLeaf:
    case Op::kLinearOtherOrder:
      return rows * c.n;
    case Op::kRowSum:
    case Op::kRowSumOfSquares:
      return 1;
    case Op::kRmsNorm:
    case Op::kStepwiseNorm:
      return rows * (3 * c.k + 1);
    case Op::kRopeTable:
      return 2 * c.k;
    case Op::kRope:
    case Op::kStepwiseRope:
      return rows * c.n * c.k;
    case Op::kAttention:
      return c.n * (2 * (c.position + 1) + c.k + 1);
    case Op::kSoftmax:
      return 2 * c.n + 1;
    case Op::kEmbedding:
      return rows * c.k;
    case Op::kSampling:
      return 6 * c.n;
    case Op::kTypical:
      return 1 + 3 * c.n;
    case Op::kNormalizeBackward:
      return rows * (2 * c.k + 1);
    case Op::kRmsNormBackward:
      return rows * c.k;
    case Op::kGatedActBackward:
      return 2 * c.n;
    case Op::kTopK:
      return 2 * c.k;
    case Op::kAbove:
      return 2 + 2 * c.n;
    case Op::kSparseDecode:
      return c.k;
    case Op::kCrossEntropy:
      return rows + 1;
    case Op::kDictionaryStep:
      return 5 * c.n;
    case Op::kTokenLogprob:
      return rows * (c.n + 1);
    case Op::kLinearWeightGrad:
    case Op::kEmbedGrad:
      return static_cast<int64_t>(c.n) * c.k;
    default:
      return c.n;
  }
}

inline uint64_t checksum(const std::vector<uint32_t>& words) {
  uint64_t sum = 0;
  for (size_t i = 0; i < words.size(); ++i) sum += mix64(i * kGoldenRatio + words[i]);
  return sum;
}

// "op key=value ... | count checksum | evenly spaced sample words"
inline std::string line_of(const Case& c, const std::vector<uint32_t>& words) {
  char text[512];
  int used =
      snprintf(text, sizeof text,
               "%s format=%s act=%s out=%s rows=%d n=%d k=%d flag=%d position=%lld "
               "window=%lld real=%.17g seed=%llu | %zu %016llx |",
               name_of(c.op), name_of(c.format), name_of(c.act), name_of(c.out), c.rows, c.n, c.k,
               c.flag, static_cast<long long>(c.position), static_cast<long long>(c.window), c.real,
               static_cast<unsigned long long>(c.seed), words.size(),
               static_cast<unsigned long long>(checksum(words)));
  const size_t samples = words.size() < kSampleWords ? words.size() : kSampleWords;
  for (size_t i = 0; i < samples; ++i) {
    const size_t at = samples == 1 ? 0 : i * (words.size() - 1) / (samples - 1);
    used += snprintf(text + used, sizeof text - static_cast<size_t>(used), " %08x", words[at]);
  }
  return text;
}

}  // namespace bitlens::spec_tests
