// The part of bitlens._core for probes of activations.
#include "bindings.h"
#include "cpu/fold.h"

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
}

}  // namespace bitlens
