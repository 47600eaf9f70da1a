// The part of bitlens._core for probes of activations.
#include "bindings.h"
#include "cpu/fold.h"
#include "cpu/linear.h"

namespace bitlens {
namespace {

spec::FoldRule rule_of(int aggregate, int64_t window, float weight) {
  if (aggregate < 0 || aggregate > static_cast<int>(spec::Aggregate::kSoftmax))
    throw std::invalid_argument("aggregate code must be from 0 (mean) to 5 (softmax)");
  if (window < 1) throw std::invalid_argument("window must be at least 1");
  return {static_cast<spec::Aggregate>(aggregate), window, weight};
}

}  // namespace

void bind_probes(py::module_& m) {
  m.def("fold_state_floats", [](int aggregate, int64_t window) {
    return spec::fold_state_floats(rule_of(aggregate, window, 0.0f));
  });
  m.def(
      "fold_scores",
      [](int aggregate, int64_t window, float weight, const Array& values, const Array& logits,
         const Array& starts, int64_t sequences, int64_t heads, float intercept, const Array& seen,
         const Array& state, const Array& out) {
        const spec::FoldRule rule = rule_of(aggregate, window, weight);
        const Ranges tokens = ranges_of(starts, sequences);
        const int64_t floats = spec::fold_state_floats(rule);
        const bool attends = rule.aggregate == spec::Aggregate::kSoftmax;
        const Array& weights = attends ? given(logits, "logits") : logits;
        fold_scores(rule,
                    {at<float>(values, {tokens.entries, heads}, "values"),
                     maybe<float>(weights, {tokens.entries, heads}, "logits"), tokens.starts,
                     sequences, heads},
                    intercept, at<int64_t>(seen, {sequences}, "seen"),
                    at<float>(state, {sequences, heads, floats}, "state"),
                    at<float>(out, {tokens.entries}, "out"));
      },
      NoGil());
  m.def(
      "score_tokens",
      [](const Array& x, int64_t tokens, int64_t k, const Array& panels, int64_t probes,
         const Array& bias, const Array& rules, const Array& weights, const Array& thresholds,
         const Array& rows, int64_t sequences, int64_t floats, const Array& seen,
         const Array& taken, const Array& state, const Array& out) {
        const auto* codes = at<int64_t>(rules, {3, probes}, "rules");
        const auto* decays = at<float>(weights, {probes}, "weights");
        for (int64_t p = 0; p < probes; ++p) {
          const spec::FoldRule rule =
              rule_of(static_cast<int>(codes[p]), codes[probes + p], decays[p]);
          if (rule.aggregate == spec::Aggregate::kSoftmax)
            throw std::invalid_argument("score_tokens: softmax needs logits");
          if (spec::fold_state_floats(rule) > floats)
            throw std::invalid_argument("score_tokens: a probe keeps more floats than that");
        }
        const auto* ids = at<int64_t>(rows, {tokens}, "rows");
        for (int64_t t = 0; t < tokens; ++t)
          if (ids[t] < 0 || ids[t] >= sequences)
            throw std::out_of_range("score_tokens: row " + std::to_string(ids[t]) + " of " +
                                    std::to_string(sequences));
        auto* scores = at<float>(out, {tokens, probes}, "out");
        const ProbeBank bank = {codes,
                                codes + probes,
                                decays,
                                codes + 2 * probes,
                                at<double>(thresholds, {probes}, "thresholds"),
                                probes,
                                sequences,
                                floats,
                                at<int64_t>(seen, {probes, sequences}, "seen"),
                                at<int64_t>(taken, {sequences}, "taken"),
                                at<float>(state, {probes, sequences, floats}, "state")};
        const LinearOutput to = {matrix_of(panels, static_cast<int>(Format::F32), probes, k),
                                 at<float>(bias, {probes}, "bias"), scores, DType::F32, probes};
        linear(at<float>(x, {tokens, k}, "x"), DType::F32, tokens, k, k, &to, 1);
        return static_cast<int>(fold_bank(bank, ids, tokens, scores));
      },
      NoGil());
}

}  // namespace bitlens
