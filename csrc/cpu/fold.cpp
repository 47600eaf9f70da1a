#include "fold.h"

#include "row_ranges.h"

namespace bitlens {

void fold_scores(const spec::FoldRule& rule, const FoldedTokens& tokens, float intercept,
                 int64_t* seen, float* state, float* out) {
  const int64_t heads = tokens.heads, width = heads * spec::fold_state_floats(rule);
  const int64_t count = tokens.sequences > 0 ? tokens.starts[tokens.sequences] : 0;
  const int64_t each = (count / (tokens.sequences > 0 ? tokens.sequences : 1) + 1) * heads;
  for_rows(tokens.sequences, each, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t t = tokens.starts[r]; t < tokens.starts[r + 1]; ++t)
        out[t] = spec::fold_token(rule, seen[r]++, heads,
                                  tokens.logits == nullptr ? nullptr : tokens.logits + t * heads,
                                  tokens.values + t * heads, intercept, state + r * width);
  });
}

}  // namespace bitlens
