#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/sampling.h"
#include "cpu/typical.h"
#include "runs.h"

namespace bitlens {
namespace {

// Rows of a slice of n logits, as ranks see them, without room behind any buffer.
class SampledRows {
 public:
  static constexpr int64_t kRows = 3;

  explicit SampledRows(int64_t n) : n_(n), x_(Random(19).floats(kRows * n)) {
    for (float& v : x_) v *= 30.0f;
    for (int64_t i = 0; i < kRows; ++i) {
      float max = x_[static_cast<size_t>(i * n)];
      for (int64_t j = 0; j < n; ++j) max = std::max(max, x_[static_cast<size_t>(i * n + j)]);
      records_.push_back({5, i == 0 ? 1u : uint64_t{1} << (20 * i), 4294967295u, 1, 0, max, 0.9f,
                          i == 1 ? 1.0f : 0.5f, 5, i == 2});
      indices_.push_back(kRows - 1 - i);
    }
  }

  SlicedRows all() const { return {x_.data(), n_, n_, 7, records_.data(), indices_.data(), kRows}; }

 private:
  int64_t n_;
  std::vector<float> x_;
  std::vector<SamplingRow> records_;
  std::vector<int64_t> indices_;
};

}  // namespace

void run_preparation(Trace& trace, int64_t n) {
  Random random(17);
  const int64_t rows = 3, first_id = 7;
  const std::vector<float> temperature = {1.0f, 0.7f, 3.0f};
  std::vector<float> x(static_cast<size_t>(rows * n)), max(rows);
  std::vector<uint8_t> bad(rows);
  for (LogitType type : {LogitType::F32, LogitType::BF16, LogitType::F16}) {
    // As fp16, too, bits of bf16 below 1 are finite.
    const DType dtype = type == LogitType::F32 ? DType::F32 : DType::BF16;
    const std::vector<uint8_t> logits = random.activations(rows * n, dtype);
    sampling_prepare(logits.data(), type, rows, n, n, temperature.data(), x.data(), max.data(),
                     bad.data());
    trace.add(x);
    trace.add(max);
    trace.add(bad);
  }
  const std::vector<int64_t> allowed = {2, 7, 9, 10, 40}, ids = {3, 7, first_id + n - 1, 5000};
  const std::vector<float> bias = {1.0f, -2.0f, 0.5f, 9.0f};
  const std::vector<uint32_t> counts = {0, 3, 1, 2};
  sampling_edit(x.data(), n, first_id,
                {allowed.data(), 5, ids.data(), bias.data(), 4, ids.data() + 1, 1, ids.data(),
                 counts.data(), 4, 1.3f, 0.1f, 0.2f});
  trace.add(x);
}

void run_sampling(Trace& trace, int64_t n) {
  const SampledRows rows(n);
  const int64_t count = SampledRows::kRows, m = 8, width = 5;
  const SlicedRows all = rows.all();
  std::vector<Scored> best(static_cast<size_t>(count * m));
  std::vector<Mass> mass(count);
  sampling_perturbed(all, m, nullptr, best.data(), mass.data());
  trace.add(best);
  trace.add(mass);

  const std::vector<int64_t> k(count, width);
  std::vector<uint64_t> keys(static_cast<size_t>(count * width)), totals(count, mass[0].support);
  sampling_top(all, k.data(), width, keys.data());
  trace.add(keys);
  std::vector<uint64_t> before(keys.size());
  std::vector<uint32_t> counts(keys.size());
  sampling_before(all, keys.data(), width, before.data(), counts.data());
  trace.add(before);
  trace.add(counts);
  const std::vector<uint64_t> thresholds = {keys[0], keys[width], 0};
  sampling_perturbed(all, m, thresholds.data(), best.data(), nullptr);
  trace.add(best);

  std::vector<uint64_t> bins(static_cast<size_t>(count * 256));
  std::vector<uint32_t> bin_counts(bins.size());
  for (int shift : {24, 16}) {
    const std::vector<uint32_t> prefix(count, shift == 24 ? 0u : 0xc1u);
    sampling_histogram(all, prefix.data(), shift, bins.data(), bin_counts.data());
    trace.add(bins);
    trace.add(bin_counts);
  }
  std::vector<uint32_t> orders, ids(count);
  for (int64_t i = 0; i < count; ++i)
    orders.push_back(static_cast<uint32_t>(keys[static_cast<size_t>(i * width)] >> 32));
  sampling_nth_tie(all, orders.data(), k.data(), ids.data());
  trace.add(ids);

  std::vector<float> logprobs(static_cast<size_t>(count)), x_max;
  std::vector<uint64_t> first;
  for (int64_t i = 0; i < count; ++i) {
    x_max.push_back(all.rows[all.indices[i]].x_max);
    first.push_back(keys[static_cast<size_t>(i * width)]);
  }
  sampling_logprobs(first.data(), x_max.data(), totals.data(), count, logprobs.data());
  trace.add(logprobs);
  std::vector<Choice> choices(count);
  sampling_choose(all, keys.data(), width, totals.data(), choices.data());
  trace.add(choices);
}

void run_typical(Trace& trace, int64_t n) {
  const SampledRows rows(n);
  const int64_t count = SampledRows::kRows;
  const std::vector<uint64_t> thresholds(count, uint64_t{0xc0000000} << 32);
  std::vector<float> x(static_cast<size_t>(count * n)), kept(x.size());
  const std::vector<int64_t> in_order = {0, 1, 2};  // as a copy of rows has its records
  SlicedRows all = rows.all();
  all.indices = in_order.data();
  typical_mask(all, thresholds.data(), x.data());
  trace.add(x);
  all.x = x.data();
  std::vector<TypicalSums> sums(count);
  typical_sums(all, sums.data());
  trace.add(sums);
  const std::vector<uint32_t> centres(count, 3u << 28);
  const std::vector<uint64_t> keys(static_cast<size_t>(2 * count), uint64_t{0xc1000000} << 32 | 9);
  std::vector<uint64_t> mass(keys.size()), bins(static_cast<size_t>(count * 256));
  std::vector<uint32_t> counts(keys.size()), bin_counts(bins.size());
  typical_before(all, centres.data(), keys.data(), 2, mass.data(), counts.data());
  trace.add(mass);
  trace.add(counts);
  const std::vector<uint64_t> prefix(count, 0), last(count, uint64_t{0xf0000000} << 24);
  typical_histogram(all, centres.data(), prefix.data(), 48, bins.data(), bin_counts.data());
  trace.add(bins);
  trace.add(bin_counts);
  typical_keep(all, centres.data(), last.data(), kept.data());
  trace.add(kept);
}

}  // namespace bitlens
