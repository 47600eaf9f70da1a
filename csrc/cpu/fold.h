#pragma once

#include <cstdint>

#include "../spec/fold.h"

namespace bitlens {

// The tokens of sequences, one after the other: sequence r has tokens starts[r] to starts[r + 1],
// each with `heads` values and, for softmax, as many logits (else null).
struct FoldedTokens {
  const float* values;
  const float* logits;
  const int64_t* starts;
  int64_t sequences;
  int64_t heads;
};

// out[t] = the score of token t's sequence after it (csrc/spec/fold.h). Goes on from seen[r] tokens
// and state [sequences, heads, fold_state_floats], and leaves both as they are after the last
// token. Split over threads by sequences.
void fold_scores(const spec::FoldRule& rule, const FoldedTokens& tokens, float intercept,
                 int64_t* seen, float* state, float* out);

// Probes of one head each that score the tokens of a pass together, `sequences` of them side by
// side. Of probe p, sequence r has had seen[p, r] tokens, and keeps the first floats of its
// `floats` of state [p, r]; of the sequence, taken[r] tokens came, those that a probe skips
// included.
struct ProbeBank {
  const int64_t* aggregates;  // codes of spec::Aggregate
  const int64_t* windows;
  const float* weights;
  const int64_t* skips;
  const double* thresholds;
  int64_t probes;
  int64_t sequences;
  int64_t floats;
  int64_t* seen;
  int64_t* taken;
  float* state;
};

enum class BankResult : int { kNotFinite = -1, kBelow = 0, kAbove = 1 };

// scores [tokens, probes], rows `stride` apart, holds the probes' values of each token, and gets
// the score of its sequence rows[t] after it, or NaN where the probe skips it. Tokens of a sequence
// stand in order. Says whether a value was no finite number (then sequences are left half way), or
// whether a score exceeds its probe's threshold.
BankResult fold_bank(const ProbeBank& bank, const int64_t* rows, int64_t tokens, float* scores,
                     int64_t stride);

}  // namespace bitlens
