#include "fold.h"

#include <cmath>
#include <limits>

#include "float_environment.h"
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

BankResult fold_bank(const ProbeBank& bank, const int64_t* rows, int64_t tokens, float* scores,
                     int64_t stride) {
  const FloatEnvironment environment;
  BankResult result = BankResult::kBelow;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t r = rows[t], taken = bank.taken[r]++;
    for (int64_t p = 0; p < bank.probes; ++p) {
      float& score = scores[t * stride + p];
      if (!std::isfinite(score)) return BankResult::kNotFinite;
      if (taken < bank.skips[p]) {
        score = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      const int64_t at = p * bank.sequences + r;
      const spec::FoldRule rule = {static_cast<spec::Aggregate>(bank.aggregates[p]),
                                   bank.windows[p], bank.weights[p]};
      score = spec::fold_token(rule, bank.seen[at]++, 1, nullptr, &score, 0.0f,
                               bank.state + at * bank.floats);
      if (score > bank.thresholds[p]) result = BankResult::kAbove;
    }
  }
  return result;
}

}  // namespace bitlens
