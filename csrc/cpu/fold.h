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

}  // namespace bitlens
