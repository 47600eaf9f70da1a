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
      [](int aggregate, int64_t window, float weight, Address values, Address logits,
         Address starts, int64_t sequences, int64_t heads, float intercept, Address seen,
         Address state, Address out) {
        fold_scores(rule_of(aggregate, window, weight),
                    {at<float>(values), at<float>(logits), at<int64_t>(starts), sequences, heads},
                    intercept, at<int64_t>(seen), at<float>(state), at<float>(out));
      },
      NoGil());
}

}  // namespace bitlens
