// Every kernel on awkward sizes, in buffers without slack, on every instruction set and several
// thread counts, from one caller and from two at once; `make sanitize` builds it with ASan, UBSan
// and TSan. All runs must agree bit for bit. Exits 1 if they do not.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cpu/attention.h"
#include "cpu/backward.h"
#include "cpu/dictionary.h"
#include "cpu/dispatch.h"
#include "cpu/encode.h"
#include "cpu/fold.h"
#include "cpu/linear.h"
#include "cpu/rows.h"
#include "cpu/threads.h"
#include "cpu/token_logprob.h"
#include "cpu/typical.h"
#include "cpu/weight_gradients.h"

namespace bitlens {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed) {}
  uint32_t bits() { return state_ = state_ * 1664525u + 1013904223u; }
  float value() { return static_cast<float>(static_cast<int32_t>(bits()) >> 8) * 0x1p-23f; }

  std::vector<float> floats(int64_t count) {
    std::vector<float> x(static_cast<size_t>(count));
    for (float& v : x) v = value();
    return x;
  }

  // The same numbers as activations of either dtype, truncated to bf16.
  std::vector<uint8_t> activations(int64_t count, DType dtype) {
    const size_t size = dtype_bytes(dtype);
    std::vector<uint8_t> x(static_cast<size_t>(count) * size);
    for (int64_t i = 0; i < count; ++i) {
      const float v = value();
      std::memcpy(&x[static_cast<size_t>(i) * size],
                  reinterpret_cast<const uint8_t*>(&v) + 4 - size, size);
    }
    return x;
  }

 private:
  uint32_t state_;
};

// What a run produced, so that runs can be compared.
struct Trace {
  std::vector<uint8_t> bytes;
  bool same_paths = true;  // fused attention equals scores, softmax and values

  template <typename T>
  void add(const std::vector<T>& x) {
    const auto* p = reinterpret_cast<const uint8_t*>(x.data());
    bytes.insert(bytes.end(), p, p + x.size() * sizeof(T));
  }
};

// Rows of a matrix as a checkpoint stores them. Scales and 16-bit weights keep small exponents.
std::vector<uint8_t> stored_rows(Random& random, Format format, int64_t n, int64_t k) {
  constexpr int64_t kBytes[] = {4, 2, 2, 34, 18, 20};
  const int64_t unit = kBytes[static_cast<int>(format)];
  const int64_t units = format >= Format::Q8_0 ? n * k / kQuantBlock : n * k;
  std::vector<uint8_t> rows(static_cast<size_t>(units * unit));
  for (uint8_t& byte : rows) byte = static_cast<uint8_t>(random.bits() >> 24);
  for (int64_t i = 0; i < units; ++i) {
    uint8_t* at = &rows[static_cast<size_t>(i * unit)];
    if (format == Format::F32) at[3] = 0x3e;
    if (format == Format::BF16 || format == Format::F16) at[1] = 0x3c;
    if (format >= Format::Q8_0) at[1] = 0x2c;
    if (format == Format::Q4_1) at[3] = 0xac;
  }
  return rows;
}

void run_linear(Trace& trace, Format format, DType dtype, int64_t m) {
  Random random(7);
  const int64_t n = 71, k = 544;
  const std::vector<uint8_t> rows = stored_rows(random, format, n, k);
  std::vector<uint8_t> panels(static_cast<size_t>(packed_bytes(format, n, k)));
  pack(format, rows.data(), n, k, panels.data());
  const PackedMatrix weight = {panels.data(), format, n, k};

  const std::vector<uint8_t> x = random.activations(m * k, dtype);
  const std::vector<float> bias = random.floats(n);
  std::vector<float> out(static_cast<size_t>(m * n));
  const LinearOutput to = {weight, bias.data(), out.data(), DType::F32, n};
  linear(x.data(), dtype, m, k, k, &to, 1);
  trace.add(out);

  std::vector<float> widened(static_cast<size_t>(3 * k));
  unpack_rows(weight, n - 3, 3, widened.data());
  trace.add(widened);
  const std::vector<int64_t> tokens = {n - 1, 0, 5};
  std::vector<uint8_t> embedded(tokens.size() * static_cast<size_t>(k) * dtype_bytes(dtype));
  embedding(tokens.data(), 3, weight, 1.5f, embedded.data(), dtype);
  trace.add(embedded);
}

void run_rows(Trace& trace, DType dtype) {
  Random random(11);
  const int64_t rows = 5, d = 300;
  const std::vector<uint8_t> x = random.activations(rows * d, dtype),
                             y = random.activations(rows * d, dtype);
  const std::vector<float> weight = random.floats(d);
  std::vector<uint8_t> out(x.size()), residual(x.size());
  std::vector<float> scale(rows), normalized(static_cast<size_t>(rows * d));
  for (bool stepwise : {true, false}) {
    rms_norm({x.data(), d, y.data(), weight.data(), 1, d, 1e-5f, dtype, dtype, out.data(), d,
              residual.data(), scale.data(), normalized.data(), stepwise},
             rows);
    trace.add(out);
  }
  trace.add(residual);
  trace.add(normalized);
  // A residual stream in fp32 beside activations of this dtype.
  const std::vector<float> stream = random.floats(rows * d);
  std::vector<float> sum(stream.size());
  rms_norm({stream.data(), d, y.data(), weight.data(), 1, d, 1e-5f, DType::F32, dtype, out.data(),
            d, sum.data(), scale.data(), nullptr},
           rows);
  trace.add(out);
  add(stream.data(), DType::F32, y.data(), dtype, rows * d, sum.data());
  trace.add(sum);
  normalize(x.data(), scale.data(), rows, d, dtype, normalized.data());
  norm_weight(normalized.data(), weight.data(), rows, d, out.data(), dtype);
  trace.add(out);
  add(x.data(), dtype, y.data(), dtype, rows * d, out.data());
  trace.add(out);
  for (Activation kind : {Activation::SILU, Activation::GELU_TANH}) {
    for (bool stepwise : {false, true}) {
      gated_act({kind, x.data(), y.data(), d, d, d, dtype, out.data(), d, stepwise}, rows);
      trace.add(out);
    }
  }
  cast(x.data(), dtype, rows * d - 1, normalized.data(), DType::F32);
  trace.add(normalized);
  cast(normalized.data(), DType::F32, rows * d - 1, out.data(), dtype);
  trace.add(out);
  scale_scores(normalized.data(), 0.3f, rows * d - 1, dtype, out.data());
  trace.add(out);

  const std::vector<float> scores = random.floats(rows * d);
  std::vector<float> result(scores.size()), sums(rows);
  softmax(scores.data(), rows, d, result.data());
  trace.add(result);
  log_softmax(scores.data(), rows, d, result.data());
  trace.add(result);
  logsumexp(scores.data(), rows, d, sums.data());
  trace.add(sums);
  const std::vector<int64_t> targets = {0, 1, -1, d - 1, 7};
  for (float smoothing : {0.0f, 0.1f}) {
    cross_entropy({x.data(), targets.data(), d, dtype, -1, smoothing, sums.data()}, rows,
                  result.data());
    trace.add(sums);
  }
  exp(scores.data(), rows * d, result.data());
  trace.add(result);
  log(scores.data(), rows * d, result.data());
  trace.add(result);
  tanh(scores.data(), rows * d, result.data());
  trace.add(result);
  soft_cap(scores.data(), rows * d, 0.5f, result.data());
  trace.add(result);

  const int64_t heads = 3, d_head = 100, n_positions = 40;
  const std::vector<float> cos = random.floats(n_positions * d_head / 2),
                           sin = random.floats(n_positions * d_head / 2);
  const std::vector<int64_t> positions = {0, 39, 7, 8, 9};
  for (bool stepwise : {false, true}) {
    rope({x.data(), dtype, heads, d_head, d, positions.data(), cos.data(), sin.data(), out.data(),
          d, stepwise},
         rows, n_positions);
    trace.add(out);
  }
}

void run_backward(Trace& trace, DType dtype) {
  Random random(23);
  const int64_t rows = 5, d = 300, count = rows * d;
  const std::vector<uint8_t> x = random.activations(count, dtype),
                             dy = random.activations(count, dtype),
                             up = random.activations(count, dtype);
  const std::vector<float> wide = random.floats(count), gradient = random.floats(count),
                           weight = random.floats(d), scale = {1.0f, 0.5f, 2.0f, 0.25f, 3.0f};
  std::vector<uint8_t> dx(x.size()), dup(x.size());
  rms_norm_backward({dy.data(), x.data(), weight.data(), d, 1e-5f, dtype, dtype, dx.data()}, rows);
  trace.add(dx);
  for (Activation kind : {Activation::SILU, Activation::GELU_TANH}) {
    gated_act_backward({kind, x.data(), up.data(), dy.data(), dtype, dx.data(), dup.data()}, count);
    trace.add(dx);
    trace.add(dup);
  }
  std::vector<float> result(wide.size()), dscale(rows);
  rms_norm_backward(
      {dy.data(), wide.data(), weight.data(), d, 1e-5f, DType::F32, dtype, result.data()}, rows);
  trace.add(result);
  for (DType out : {DType::F32, DType::BF16}) {
    scaled(x.data(), dtype, count, 0.3f, result.data(), out);
    trace.add(result);
  }
  normalize_backward(gradient.data(), wide.data(), scale.data(), rows, d, result.data(),
                     dscale.data());
  trace.add(result);
  rms_scale_backward(dscale.data(), wide.data(), scale.data(), rows, d, result.data());
  trace.add(result);
  softmax_backward(wide.data(), gradient.data(), rows, d, result.data());
  trace.add(result);
  soft_cap_backward(gradient.data(), wide.data(), count, 2.0f, result.data());
  trace.add(result);
}

// Two sequences, one with a cached prefix, over pages in scrambled order.
void run_attention(Trace& trace, DType dtype, float cap, int64_t window) {
  Random random(13);
  const int64_t heads = 6, groups = 2, d_head = 24, max_pages = 5;
  const std::vector<int64_t> starts = {0, 131, 134}, past = {0, 190}, none = {0, 0},
                             prefix = {0, 0, 190};
  const std::vector<int32_t> table = {7, 1, 3, 0, 0, 2, 6, 0, 5, 0};
  const int64_t page = kPageKeys * groups * d_head, n_pages = 8, rows = starts[2];
  std::vector<uint8_t> k(static_cast<size_t>(n_pages * page) * dtype_bytes(dtype)), v(k.size());
  const KVPages pages = {dtype, groups, d_head, table.data(), max_pages, k.data(), v.data()};
  const int64_t stride = groups * d_head;
  const std::vector<uint8_t> old_k = random.activations(190 * stride, dtype);
  const std::vector<uint8_t> new_k = random.activations(rows * stride, dtype);
  kv_write({prefix.data(), none.data(), 2}, old_k.data(), stride, old_k.data(), stride, pages);
  const RaggedRows ragged = {starts.data(), past.data(), 2};
  kv_write(ragged, new_k.data(), stride, new_k.data(), stride, pages);

  const std::vector<uint8_t> q = random.activations(rows * heads * d_head, dtype);
  std::vector<uint8_t> out(q.size()), unfused(q.size());
  std::vector<float> lse(static_cast<size_t>(rows * heads));
  const Attention op = {ragged, pages, heads, 0.2f, cap, window};
  attention(op, q.data(), heads * d_head, out.data(), heads * d_head, lse.data());
  trace.add(out);
  trace.add(lse);

  const int64_t k_total = 193;
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < rows; ++i) indices.push_back(i);
  std::vector<float> scores(static_cast<size_t>(rows * heads * k_total)), pattern(scores.size());
  attention_scores(op, q.data(), heads * d_head, indices.data(), rows, k_total, scores.data());
  softmax(scores.data(), rows * heads, k_total, pattern.data());
  attention_values(op, pattern.data(), k_total, unfused.data(), heads * d_head);
  trace.add(scores);
  trace.same_paths &= unfused == out;
}

// Logits of three rows at every temperature, in every type, edited; the slice's first id is odd.
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

void run_training(Trace& trace, DType dtype) {
  Random random(41);
  const int64_t rows = 300, n = 61, d = 37, starts[] = {0, 17, 17, rows};
  const SequenceStarts sequences = {starts, 3};
  const std::vector<uint8_t> dy = random.activations(rows * n, dtype),
                             x = random.activations(rows * d, dtype);
  const std::vector<float> wide = random.floats(rows * n);
  std::vector<float> matrix = random.floats(n * d), bias = random.floats(n), norm = bias;
  linear_weight_grad({dy.data(), dtype, n}, {x.data(), dtype, d}, sequences, matrix.data());
  bias_grad({dy.data(), dtype, n}, sequences, bias.data());
  norm_weight_grad({dy.data(), dtype, n}, wide.data(), 1, sequences, norm.data());
  trace.add(matrix), trace.add(bias), trace.add(norm);
  std::vector<int64_t> ids(rows);
  for (int64_t t = 0; t < rows; ++t) ids[t] = random.bits() % 13;
  std::vector<float> table = random.floats(13 * n), logprob(rows), x_max(rows), z(rows), out = wide;
  embed_grad(wide.data(), n, ids.data(), 0.5f, sequences, table.data());
  token_logprob(wide.data(), rows, n, ids.data(), 0.7f, logprob.data(), x_max.data(), z.data());
  token_logprob_backward(logprob.data(), wide.data(), rows, n, ids.data(), 0.7f, x_max.data(),
                         z.data(), out.data());
  trace.add(table), trace.add(logprob), trace.add(out);
}

Trace run_all(bool slow) {
  Trace trace;
  for (DType dtype : {DType::F32, DType::BF16}) {
    for (int format = 0; format <= 5; ++format)
      for (int64_t m : {1, 3, 37})
        if (!slow || m < 37) run_linear(trace, static_cast<Format>(format), dtype, m);
    run_rows(trace, dtype);
    run_backward(trace, dtype);
    run_training(trace, dtype);
    run_dictionary(trace, dtype == DType::F32 ? 300 : 1);
    for (int64_t window : {0, 50})
      for (float cap : {0.0f, 0.25f}) run_attention(trace, dtype, cap, window);
  }
  run_fold(trace);
  run_bank(trace);
  for (int64_t n : {1, 17, 1031}) {
    run_preparation(trace, n);
    run_sampling(trace, n);
    run_typical(trace, n);
  }
  return trace;
}

bool report(const std::string& what, const Trace& found, const Trace& expected) {
  const bool same = found.bytes == expected.bytes && found.same_paths;
  std::printf("%-24s %8zu bytes %s\n", what.c_str(), found.bytes.size(),
              same ? "same" : "DIFFERENT");
  return same;
}

int stress() {
  bool ok = true;
  set_num_threads(1);
  const Trace expected = run_all(false), expected_short = run_all(true);
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const bool slow = isa == "generic";  // without FMA instructions
    const Trace& reference = slow ? expected_short : expected;
    for (int threads : {1, 2, 5}) {
      set_num_threads(threads);
      ok &= report(isa + ", " + std::to_string(threads) + " threads", run_all(slow), reference);
    }
    Trace first, second;
    std::thread one([&] { first = run_all(slow); }), two([&] { second = run_all(slow); });
    one.join();
    two.join();
    ok &= report(isa + ", first caller", first, reference);
    ok &= report(isa + ", second caller", second, reference);
  }
  set_num_threads(1);  // ends the workers
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace bitlens

int main() { return bitlens::stress(); }
