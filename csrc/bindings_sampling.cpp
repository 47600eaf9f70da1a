// The sampling part of bitlens._core.
#include "bindings.h"
#include "cpu/sampling.h"
#include "cpu/typical.h"

namespace bitlens {
namespace {

LogitType logit_type_of(int code) {
  if (code < 0 || code > 2)
    throw std::invalid_argument("logit type code must be 0 (F32), 1 (BF16) or 2 (F16)");
  return static_cast<LogitType>(code);
}

// The slice and its rows, as every function but the first three takes them.
SlicedRows rows_of(Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows,
                   Address indices, int64_t count) {
  return {at<float>(x), n, stride, first_id, at<SamplingRow>(rows), at<int64_t>(indices), count};
}

void bind_slices(py::module_& m) {
  m.def(
      "sampling_edit",
      [](Address row, int64_t n, uint32_t first_id, std::pair<Address, int64_t> allowed,
         std::tuple<Address, Address, int64_t> bias, std::pair<Address, int64_t> banned,
         std::tuple<Address, Address, int64_t> seen, std::tuple<float, float, float> penalties) {
        const auto [repetition, frequency, presence] = penalties;
        sampling_edit(
            at<float>(row), n, first_id,
            {at<int64_t>(allowed.first), allowed.second, at<int64_t>(std::get<0>(bias)),
             at<float>(std::get<1>(bias)), std::get<2>(bias), at<int64_t>(banned.first),
             banned.second, at<int64_t>(std::get<0>(seen)), at<uint32_t>(std::get<1>(seen)),
             std::get<2>(seen), repetition, frequency, presence});
      },
      NoGil());
  m.def(
      "sampling_prepare",
      [](Address logits, int type, int64_t rows, int64_t n, int64_t stride, Address temperature,
         Address x, Address max, Address bad) {
        sampling_prepare(at<void>(logits), logit_type_of(type), rows, n, stride,
                         at<float>(temperature), at<float>(x), at<float>(max), at<uint8_t>(bad));
      },
      NoGil());
  m.def(
      "sampling_terms",
      [](Address keys, int64_t count, float x_max, uint64_t seed, uint32_t position, uint32_t draw,
         Address weights, Address scores) {
        sampling_terms(at<uint64_t>(keys), count, x_max, {seed, position, draw, 0},
                       at<uint64_t>(weights), at<int64_t>(scores));
      },
      NoGil());
  m.def("sampling_score", &sampling_score);
  m.def(
      "sampling_logprobs",
      [](Address keys, Address x_max, Address totals, int64_t count, Address out) {
        sampling_logprobs(at<uint64_t>(keys), at<float>(x_max), at<uint64_t>(totals), count,
                          at<float>(out));
      },
      NoGil());
}

void bind_typical(py::module_& m) {
  m.def(
      "typical_mask",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address thresholds, Address out) {
        typical_mask(rows_of(x, n, stride, first_id, rows, indices, count),
                     at<uint64_t>(thresholds), at<float>(out));
      },
      NoGil());
  m.def(
      "typical_sums",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address sums) {
        typical_sums(rows_of(x, n, stride, first_id, rows, indices, count), at<TypicalSums>(sums));
      },
      NoGil());
  m.def(
      "typical_before",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address centres, Address keys, int64_t width, Address mass,
         Address counts) {
        typical_before(rows_of(x, n, stride, first_id, rows, indices, count), at<uint32_t>(centres),
                       at<uint64_t>(keys), width, at<uint64_t>(mass), at<uint32_t>(counts));
      },
      NoGil());
  m.def(
      "typical_histogram",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address centres, Address prefix, int shift, Address mass, Address counts) {
        typical_histogram(rows_of(x, n, stride, first_id, rows, indices, count),
                          at<uint32_t>(centres), at<uint64_t>(prefix), shift, at<uint64_t>(mass),
                          at<uint32_t>(counts));
      },
      NoGil());
  m.def(
      "typical_keep",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address centres, Address last, Address out) {
        typical_keep(rows_of(x, n, stride, first_id, rows, indices, count), at<uint32_t>(centres),
                     at<uint64_t>(last), at<float>(out));
      },
      NoGil());
}

}  // namespace

void bind_sampling(py::module_& m) {
  bind_slices(m);
  bind_typical(m);
  m.def(
      "sampling_perturbed",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, int64_t m, Address thresholds, Address best, Address mass) {
        sampling_perturbed(rows_of(x, n, stride, first_id, rows, indices, count), m,
                           at<uint64_t>(thresholds), at<Scored>(best), at<Mass>(mass));
      },
      NoGil());
  m.def(
      "sampling_top",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address k, int64_t width, Address keys) {
        sampling_top(rows_of(x, n, stride, first_id, rows, indices, count), at<int64_t>(k), width,
                     at<uint64_t>(keys));
      },
      NoGil());
  m.def(
      "sampling_choose",
      [](Address rows, Address indices, int64_t count, Address keys, int64_t width, Address totals,
         Address choices) {
        sampling_choose(rows_of(0, 0, 0, 0, rows, indices, count), at<uint64_t>(keys), width,
                        at<uint64_t>(totals), at<Choice>(choices));
      },
      NoGil());
  m.def(
      "sampling_before",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address keys, int64_t width, Address mass, Address counts) {
        sampling_before(rows_of(x, n, stride, first_id, rows, indices, count), at<uint64_t>(keys),
                        width, at<uint64_t>(mass), at<uint32_t>(counts));
      },
      NoGil());
  m.def(
      "sampling_histogram",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address prefix, int shift, Address mass, Address counts) {
        sampling_histogram(rows_of(x, n, stride, first_id, rows, indices, count),
                           at<uint32_t>(prefix), shift, at<uint64_t>(mass), at<uint32_t>(counts));
      },
      NoGil());
  m.def(
      "sampling_nth_tie",
      [](Address x, int64_t n, int64_t stride, uint32_t first_id, Address rows, Address indices,
         int64_t count, Address order, Address nth, Address ids) {
        sampling_nth_tie(rows_of(x, n, stride, first_id, rows, indices, count), at<uint32_t>(order),
                         at<int64_t>(nth), at<uint32_t>(ids));
      },
      NoGil());
}

}  // namespace bitlens
