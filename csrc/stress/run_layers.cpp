#include <cstdint>
#include <vector>

#include "cpu/attention.h"
#include "cpu/linear.h"
#include "cpu/rows.h"
#include "runs.h"

namespace bitlens {
namespace {

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

}  // namespace

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

}  // namespace bitlens
