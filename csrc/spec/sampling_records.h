// The records that samplers are given, on the CPU and on a GPU.
#pragma once

#include <cstdint>

namespace bitlens::spec {

// How one row is sampled. model/sampling/batch.py has the same layout.
struct SamplingRow {
  uint64_t seed;
  uint64_t min_weight;
  uint32_t position, draw, domain;
  float x_max;
  float top_p;      // 1 keeps all
  float typical_p;  // 1 keeps all
  uint32_t top_k;   // 0 keeps all
  uint32_t joint;   // 1: the nucleus is that of all tokens, not of the first top_k
};
static_assert(sizeof(SamplingRow) == 48);

// Edits of one row before temperature: ids outside the slice are passed over.
struct LogitEdits {
  const int64_t* allowed;  // ascending; null: all are
  int64_t n_allowed;
  const int64_t* bias_ids;
  const float* bias;
  int64_t n_bias;
  const int64_t* banned;
  int64_t n_banned;
  const int64_t* seen;  // in prompt or output
  const uint32_t* output_counts;
  int64_t n_seen;
  float repetition, frequency, presence;
};

}  // namespace bitlens::spec
