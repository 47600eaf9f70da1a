// The part of bitlens._core that trains: log-probabilities of tokens and gradients of weights.
#include "bindings.h"
#include "cpu/loss.h"
#include "cpu/token_logprob.h"
#include "cpu/weight_gradients.h"

namespace bitlens {
namespace {

using In = const Array&;

const int64_t* ids_of(In ids, int64_t count, int64_t n) {
  const auto* found = at<int64_t>(ids, {count}, "ids");
  for (int64_t i = 0; i < count; ++i)
    if (found[i] < 0 || found[i] >= n) throw std::out_of_range("ids: one beyond the vocabulary");
  return found;
}

GradientRows rows_of(In data, int dtype, int64_t rows, int64_t width, const char* name) {
  const DType type = dtype_of(dtype);
  return {at(data, type, {rows, width}, name), type, width};
}

// The first sequence begins with the first row.
SequenceStarts sequences_of(In starts, int64_t count) {
  const Ranges ranges = ranges_of(starts, count);
  if (ranges.starts[0] != 0) throw std::invalid_argument("starts: the first must be 0");
  return {ranges.starts, count};
}

void bind_token_logprob(py::module_& m) {
  m.def(
      "token_logprob",
      [](In logits, int64_t rows, int64_t n, In ids, float temperature, In out, In x_max, In z) {
        token_logprob(at<float>(logits, {rows, n}, "logits"), rows, n, ids_of(ids, rows, n),
                      temperature, at<float>(out, {rows}, "out"), at<float>(x_max, {rows}, "x_max"),
                      at<float>(z, {rows}, "z"));
      },
      NoGil());
  m.def(
      "token_logprob_backward",
      [](In dlogprob, In logits, int64_t rows, int64_t n, In ids, float temperature, In x_max, In z,
         In dlogits) {
        token_logprob_backward(at<float>(dlogprob, {rows}, "dlogprob"),
                               at<float>(logits, {rows, n}, "logits"), rows, n,
                               ids_of(ids, rows, n), temperature, at<float>(x_max, {rows}, "x_max"),
                               at<float>(z, {rows}, "z"), at<float>(dlogits, {rows, n}, "dlogits"));
      },
      NoGil());
}

void bind_losses(py::module_& m) {
  m.def(
      "bounded_exp",
      [](In x, int64_t count, In y) {
        bounded_exp(at<double>(x, {count}, "x"), count, at<double>(y, {count}, "y"));
      },
      NoGil());
  m.def(
      "softplus",
      [](In x, int64_t count, In y) {
        softplus(at<double>(x, {count}, "x"), count, at<double>(y, {count}, "y"));
      },
      NoGil());
}

}  // namespace

void bind_training(py::module_& m) {
  bind_token_logprob(m);
  bind_losses(m);
  m.def(
      "linear_weight_grad",
      [](In dy, int dy_dtype, int64_t n, In x, int x_dtype, int64_t k, In starts, int64_t count,
         In sums) {
        const SequenceStarts sequences = sequences_of(starts, count);
        const int64_t rows = sequences.starts[count];
        linear_weight_grad(rows_of(dy, dy_dtype, rows, n, "dy"), rows_of(x, x_dtype, rows, k, "x"),
                           sequences, at<float>(sums, {n, k}, "sums"));
      },
      NoGil());
  m.def(
      "bias_grad",
      [](In dy, int dtype, int64_t n, In starts, int64_t count, In sums) {
        const SequenceStarts sequences = sequences_of(starts, count);
        bias_grad(rows_of(dy, dtype, sequences.starts[count], n, "dy"), sequences,
                  at<float>(sums, {n}, "sums"));
      },
      NoGil());
  m.def(
      "norm_weight_grad",
      [](In dy, int dtype, int64_t d, In normalized, int64_t heads, In starts, int64_t count,
         In sums) {
        const SequenceStarts sequences = sequences_of(starts, count);
        const int64_t rows = elements_of({sequences.starts[count], heads});
        norm_weight_grad(rows_of(dy, dtype, rows, d, "dy"),
                         at<float>(normalized, {rows, d}, "normalized"), heads, sequences,
                         at<float>(sums, {d}, "sums"));
      },
      NoGil());
  m.def(
      "embed_grad",
      [](In dresid, int64_t d, In tokens, int64_t vocabulary, float scale, In starts, int64_t count,
         In sums) {
        const SequenceStarts sequences = sequences_of(starts, count);
        const int64_t rows = sequences.starts[count];
        embed_grad(at<float>(dresid, {rows, d}, "dresid"), d, ids_of(tokens, rows, vocabulary),
                   scale, sequences, at<float>(sums, {vocabulary, d}, "sums"));
      },
      NoGil());
}

}  // namespace bitlens
