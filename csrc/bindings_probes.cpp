// The part of bitlens._core for probes of activations.
#include <pybind11/stl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bindings.h"
#include "cpu/fold.h"
#include "cpu/linear.h"
#include "spec/formats.h"

namespace bitlens {
namespace {

spec::FoldRule rule_of(int aggregate, int64_t window, float weight) {
  if (aggregate < 0 || aggregate > static_cast<int>(spec::Aggregate::kSoftmax))
    throw std::invalid_argument("aggregate code must be from 0 (mean) to 5 (softmax)");
  if (window < 1) throw std::invalid_argument("window must be at least 1");
  return {static_cast<spec::Aggregate>(aggregate), window, weight};
}

// The probes of one hook, and where each sequence stands.
struct HookProbes {
  py::object panels_owner;
  PackedMatrix weight;
  std::vector<float> bias, weights, state;
  std::vector<int64_t> rules, seen, taken;
  std::vector<double> thresholds;
  int64_t floats;

  ProbeBank bank(int64_t sequences) {
    return {rules.data(),      rules.data() + weight.n,
            weights.data(),    rules.data() + 2 * weight.n,
            thresholds.data(), weight.n,
            sequences,         floats,
            seen.data(),       taken.data(),
            state.data()};
  }
};

template <typename T>
std::vector<T> copied(const py::object& array, int64_t rows, int64_t columns, const char* name) {
  const auto* data = at<T>(array_of(array), {rows, columns}, name);
  return {data, data + rows * columns};
}

// The probes of all hooks: one call a pass scores its tokens.
class TokenScorer {
 public:
  explicit TokenScorer(int64_t sequences) : sequences_(sequences) {
    if (sequences < 0) throw std::invalid_argument("TokenScorer: sequences below 0");
  }

  void add(const py::object& panels, int64_t probes, int64_t k, const py::object& bias,
           const py::object& rules, const py::object& weights, const py::object& thresholds) {
    HookProbes hook = {panels,
                       matrix_of(array_of(panels), static_cast<int>(Format::F32), probes, k),
                       copied<float>(bias, 1, probes, "bias"),
                       copied<float>(weights, 1, probes, "weights"),
                       {},
                       copied<int64_t>(rules, 3, probes, "rules"),
                       {},
                       {},
                       copied<double>(thresholds, 1, probes, "thresholds"),
                       0};
    for (int64_t p = 0; p < probes; ++p) {
      const spec::FoldRule rule =
          rule_of(static_cast<int>(hook.rules[p]), hook.rules[probes + p], hook.weights[p]);
      if (rule.aggregate == spec::Aggregate::kSoftmax)
        throw std::invalid_argument("TokenScorer: softmax needs logits");
      hook.floats = std::max(hook.floats, spec::fold_state_floats(rule));
    }
    hook.seen.resize(elements_of({probes, sequences_}));
    hook.taken.resize(sequences_);
    hook.state.resize(elements_of({probes, sequences_, hook.floats}));
    hooks_.push_back(std::move(hook));
    probes_ += probes;
  }

  // Returns 1 if a score exceeds its threshold, 0 if none does, and -1 - h where hook h gave a
  // value that is no finite number.
  int push(const std::vector<Array>& x, int64_t tokens, const Array& rows, const Array& out) {
    if (x.size() != hooks_.size())
      throw std::invalid_argument("TokenScorer: activations of another number of hooks");
    const auto* ids = at<int64_t>(rows, {tokens}, "rows");
    for (int64_t t = 0; t < tokens; ++t)
      if (ids[t] < 0 || ids[t] >= sequences_)
        throw std::out_of_range("TokenScorer: row " + std::to_string(ids[t]) + " of " +
                                std::to_string(sequences_));
    auto* scores = at<float>(out, {tokens, probes_}, "out");
    bool above = false;
    for (size_t h = 0; h < hooks_.size(); ++h) {
      HookProbes& hook = hooks_[h];
      const LinearOutput to = {hook.weight, hook.bias.data(), scores, DType::F32, probes_};
      linear(fp32(x[h], tokens, hook.weight.k), DType::F32, tokens, hook.weight.k, hook.weight.k,
             &to, 1);
      const BankResult found = fold_bank(hook.bank(sequences_), ids, tokens, scores, probes_);
      if (found == BankResult::kNotFinite) return -1 - static_cast<int>(h);
      above = above || found == BankResult::kAbove;
      scores += hook.weight.n;
    }
    return above ? 1 : 0;
  }

 private:
  const float* fp32(const Array& x, int64_t tokens, int64_t k) {
    if (x.element != Element::BF16) return at<float>(x, {tokens, k}, "x");
    const auto* narrow = static_cast<const uint16_t*>(at(x, DType::BF16, {tokens, k}, "x"));
    widened_.resize(elements_of({tokens, k}));
    for (size_t i = 0; i < widened_.size(); ++i) widened_[i] = spec::widen_bf16(narrow[i]);
    return widened_.data();
  }

  int64_t sequences_, probes_ = 0;
  std::vector<HookProbes> hooks_;
  std::vector<float> widened_;
};

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
  py::class_<TokenScorer>(m, "TokenScorer")
      .def(py::init<int64_t>())
      .def("add", &TokenScorer::add)
      .def("push", &TokenScorer::push, NoGil());
}

}  // namespace bitlens
