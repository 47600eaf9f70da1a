#include <cstdint>
#include <vector>

#include "cpu/dictionary.h"
#include "cpu/encode.h"
#include "cpu/fold.h"
#include "runs.h"

namespace bitlens {
void run_fold(Trace& trace) {
  constexpr int64_t kSequences = 70, kTokens = 90, kHeads = 3, kCount = kSequences * kTokens;
  Random random(29);
  const std::vector<float> z = random.floats(kCount * kHeads), l = random.floats(kCount * kHeads);
  std::vector<int64_t> starts;
  for (int64_t r = 0; r <= kSequences; ++r) starts.push_back(r * kTokens);
  for (int kind = 0; kind <= static_cast<int>(spec::Aggregate::kSoftmax); ++kind) {
    const spec::FoldRule rule = {static_cast<spec::Aggregate>(kind), 16, 0.1f};
    std::vector<int64_t> seen(kSequences);
    std::vector<float> out(kCount), state(17 * kSequences * kHeads);
    fold_scores(rule, {z.data(), l.data(), starts.data(), kSequences, kHeads}, 0.5f, seen.data(),
                state.data(), out.data());
    trace.add(out);
    trace.add(state);
  }
}

void run_bank(Trace& trace) {
  constexpr int64_t kProbes = 5, kSequences = 7, kTokens = 300, kFloats = 17;
  Random random(31);
  std::vector<float> scores = random.floats(kTokens * kProbes);
  const std::vector<int64_t> codes = {0, 1, 2, 3, 4}, windows = {1, 1, 1, 16, 1},
                             skips = {0, 0, 3, 0, 1};
  const std::vector<float> weights(kProbes, 0.1f);
  const std::vector<double> thresholds(kProbes, 0.5);
  std::vector<int64_t> rows(kTokens), seen(kProbes * kSequences), taken(kSequences);
  for (int64_t t = 0; t < kTokens; ++t) rows[t] = t % kSequences;
  std::vector<float> state(kProbes * kSequences * kFloats);
  const ProbeBank bank = {codes.data(),      windows.data(), weights.data(), skips.data(),
                          thresholds.data(), kProbes,        kSequences,     kFloats,
                          seen.data(),       taken.data(),   state.data()};
  fold_bank(bank, rows.data(), kTokens, scores.data(), kProbes);
  trace.add(scores);
  trace.add(state);
}

void run_dictionary(Trace& trace, int64_t m) {
  Random random(11);
  const int64_t n = 1057, d = 33;
  const std::vector<float> rows = random.floats(n * d), x = random.floats(m * d);
  std::vector<uint8_t> panels(static_cast<size_t>(packed_bytes(Format::F32, n, d)));
  pack(Format::F32, reinterpret_cast<const uint8_t*>(rows.data()), n, d, panels.data());
  const Encoded op = {x.data(), m, {panels.data(), Format::F32, n, d}, nullptr};
  std::vector<float> values(static_cast<size_t>(m * 5)), decoded(static_cast<size_t>(m * d));
  std::vector<int32_t> indices(values.size());
  encode_top_k(op, 5, values.data(), indices.data());
  const ActiveFeatures found = encode_above(op, rows.data());
  weighted_sums(found.values.data(), found.indices.data(), found.starts.data(), m, rows.data(), n,
                d, nullptr, decoded.data());
  trace.add(values), trace.add(indices), trace.add(found.indices), trace.add(decoded);
}

}  // namespace bitlens
