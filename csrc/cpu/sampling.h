// Sampling over rows of logits, of which this process holds a slice of the vocabulary. What ranks
// exchange between these calls, and in which order, is model/sampling/rounds.py's.
#pragma once

#include "../spec/sampling_records.h"
#include "sampling_kernels.h"

namespace bitlens {

using spec::LogitEdits;
using spec::SamplingRow;

// The chosen rows of a slice: row i is x + indices[i] * stride, described by rows[indices[i]].
struct SlicedRows {
  const float* x;
  int64_t n, stride;
  uint32_t first_id;
  const SamplingRow* rows;
  const int64_t* indices;
  int64_t count;
};

// What a row's list of best tokens decides.
struct Choice {
  uint64_t key;  // of the token
  uint64_t mass, mass_before;
  uint64_t threshold_key;  // of the last token that min-p, top-k and top-p keep
  uint64_t typical_key;    // of the last token that typical_p keeps; 0 without it
  uint32_t centre;         // of that order
  uint32_t kept, rank;
  uint32_t reserved;  // keeps the size a multiple of 8
};
static_assert(sizeof(Choice) == 56);

void sampling_edit(float* row, int64_t n, uint32_t first_id, const LogitEdits& edits);

void sampling_prepare(const void* logits, LogitType type, int64_t rows, int64_t n, int64_t stride,
                      const float* temperature, float* x, float* max, uint8_t* bad);

// The m best scores of each row among tokens whose key is at least its threshold (null: all),
// padded with key 0; with `mass`, the slice's sums of weights, too.
void sampling_perturbed(const SlicedRows& rows, int64_t m, const uint64_t* thresholds, Scored* best,
                        Mass* mass);

// The first k[i] kept tokens of each row in descending key, padded with 0 to `width`.
void sampling_top(const SlicedRows& rows, const int64_t* k, int64_t width, uint64_t* keys);

// Filters and chooses from each row's merged first tokens; totals: their mass before top_k.
void sampling_choose(const SlicedRows& rows, uint64_t* keys, int64_t width, const uint64_t* totals,
                     Choice* choices);

void sampling_before(const SlicedRows& rows, const uint64_t* keys, int64_t width, uint64_t* mass,
                     uint32_t* count);

void sampling_histogram(const SlicedRows& rows, const uint32_t* prefix, int shift, uint64_t* mass,
                        uint32_t* count);

// The id of the nth token (from 1) with these order bits; 0xffffffff if nth is 0.
void sampling_nth_tie(const SlicedRows& rows, const uint32_t* order, const int64_t* nth,
                      uint32_t* ids);

// Weight and score of each key.
void sampling_terms(const uint64_t* keys, int64_t count, float x_max, const spec::NoiseKey& noise,
                    uint64_t* weights, int64_t* scores);

// The score of a token d below the best whose noise bits are r.
int64_t sampling_score(float d, uint64_t r);

void sampling_logprobs(const uint64_t* keys, const float* x_max, const uint64_t* totals,
                       int64_t count, float* out);

}  // namespace bitlens
