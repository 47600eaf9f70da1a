// The sampling part of bitlens._core.
#include <pybind11/stl.h>

#include <algorithm>

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

const void* logits_at(const Array& logits, LogitType type, int64_t rows, int64_t n,
                      int64_t stride) {
  constexpr Element kElements[] = {Element::F32, Element::BF16, Element::F16};
  require(logits, kElements[static_cast<int>(type)], type == LogitType::F32 ? 4 : 2,
          extent_of(rows, n, stride), false, "logits");
  return logits.data;
}

// The slice and its rows, as every function but the first three takes them.
struct Slices {
  Array x;
  int64_t n, stride;
  uint32_t first_id;
  Array rows, indices;
  int64_t count;

  SlicedRows checked() const {
    const auto* chosen = at<int64_t>(indices, {count}, "indices");
    int64_t size = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (chosen[i] < 0) throw std::out_of_range("indices: a row below 0");
      size = std::max(size, chosen[i] + 1);
    }
    if (x.given)
      require(x, Element::F32, sizeof(float), extent_of(size, n, stride), false, "x");
    else if (n != 0)
      throw std::invalid_argument("x: None where an array is needed");
    return {reinterpret_cast<const float*>(x.data), n,      stride, first_id,
            at<SamplingRow>(rows, {size}, "rows"),  chosen, count};
  }
};

// Binds a function of slices; the rest of its arguments follow theirs.
template <typename... Rest>
void bind_slices(py::module_& m, const char* name, void (*run)(const Slices&, Rest...)) {
  m.def(
      name,
      [run](const Array& x, int64_t n, int64_t stride, uint32_t first_id, const Array& rows,
            const Array& indices, int64_t count,
            Rest... rest) { run({x, n, stride, first_id, rows, indices, count}, rest...); },
      NoGil());
}

using In = const Array&;

// Ids or counts of an edit; null for None, so that an empty list is not.
template <typename T>
T* listed(const Array& array, int64_t count, const char* name) {
  static T none{};
  if (!array.given) return nullptr;
  T* const found = at<T>(array, {count}, name);
  return found == nullptr ? &none : found;
}

void bind_rows(py::module_& m) {
  m.def(
      "sampling_edit",
      [](In row, int64_t n, uint32_t first_id, const std::pair<Array, int64_t>& allowed,
         const std::tuple<Array, Array, int64_t>& bias, const std::pair<Array, int64_t>& banned,
         const std::tuple<Array, Array, int64_t>& seen,
         const std::tuple<float, float, float>& penalties) {
        const auto& [bias_ids, biases, n_bias] = bias;
        const auto& [seen_ids, counts, n_seen] = seen;
        const auto [repetition, frequency, presence] = penalties;
        sampling_edit(
            at<float>(row, {n}, "row"), n, first_id,
            {listed<int64_t>(allowed.first, allowed.second, "allowed"), allowed.second,
             listed<int64_t>(bias_ids, n_bias, "bias"), listed<float>(biases, n_bias, "bias"),
             n_bias, listed<int64_t>(banned.first, banned.second, "banned"), banned.second,
             listed<int64_t>(seen_ids, n_seen, "seen"), listed<uint32_t>(counts, n_seen, "seen"),
             n_seen, repetition, frequency, presence});
      },
      NoGil());
  m.def(
      "sampling_prepare",
      [](In logits, int type, int64_t rows, int64_t n, int64_t stride, In temperature, In x, In max,
         In bad) {
        const LogitType kind = logit_type_of(type);
        sampling_prepare(logits_at(logits, kind, rows, n, stride), kind, rows, n, stride,
                         at<float>(temperature, {rows}, "temperature"),
                         maybe<float>(x, {rows, n}, "x"), at<float>(max, {rows}, "max"),
                         at<uint8_t>(bad, {rows}, "bad"));
      },
      NoGil());
  m.def(
      "sampling_terms",
      [](In keys, int64_t count, float x_max, uint64_t seed, uint32_t position, uint32_t draw,
         In weights, In scores) {
        sampling_terms(at<uint64_t>(keys, {count}, "keys"), count, x_max, {seed, position, draw, 0},
                       at<uint64_t>(weights, {count}, "weights"),
                       at<int64_t>(scores, {count}, "scores"));
      },
      NoGil());
  m.def("sampling_score", &sampling_score);
  m.def(
      "sampling_logprobs",
      [](In keys, In x_max, In totals, int64_t count, In out) {
        sampling_logprobs(at<uint64_t>(keys, {count}, "keys"), at<float>(x_max, {count}, "x_max"),
                          at<uint64_t>(totals, {count}, "totals"), count,
                          at<float>(out, {count}, "out"));
      },
      NoGil());
}

void typical_mask_of(const Slices& s, In thresholds, In out) {
  typical_mask(s.checked(), at<uint64_t>(thresholds, {s.count}, "thresholds"),
               at<float>(out, {s.count, s.n}, "out"));
}

void typical_sums_of(const Slices& s, In sums) {
  typical_sums(s.checked(), at<TypicalSums>(sums, {s.count}, "sums"));
}

void typical_before_of(const Slices& s, In centres, In keys, int64_t width, In mass, In counts) {
  typical_before(s.checked(), at<uint32_t>(centres, {s.count}, "centres"),
                 at<uint64_t>(keys, {s.count, width}, "keys"), width,
                 at<uint64_t>(mass, {s.count, width}, "mass"),
                 at<uint32_t>(counts, {s.count, width}, "counts"));
}

void typical_histogram_of(const Slices& s, In centres, In prefix, int shift, In mass, In counts) {
  typical_histogram(s.checked(), at<uint32_t>(centres, {s.count}, "centres"),
                    at<uint64_t>(prefix, {s.count}, "prefix"), shift,
                    at<uint64_t>(mass, {s.count, 256}, "mass"),
                    at<uint32_t>(counts, {s.count, 256}, "counts"));
}

void typical_keep_of(const Slices& s, In centres, In last, In out) {
  typical_keep(s.checked(), at<uint32_t>(centres, {s.count}, "centres"),
               at<uint64_t>(last, {s.count}, "last"), at<float>(out, {s.count, s.n}, "out"));
}

void perturbed_of(const Slices& s, int64_t m, In thresholds, In best, In mass) {
  sampling_perturbed(s.checked(), m, maybe<uint64_t>(thresholds, {s.count}, "thresholds"),
                     at<Scored>(best, {s.count, m}, "best"), maybe<Mass>(mass, {s.count}, "mass"));
}

void top_of(const Slices& s, In k, int64_t width, In keys) {
  const auto* wanted = at<int64_t>(k, {s.count}, "k");
  for (int64_t i = 0; i < s.count; ++i)
    if (wanted[i] < 0 || wanted[i] > width)
      throw std::invalid_argument("k: more than the width of the keys");
  sampling_top(s.checked(), wanted, width, at<uint64_t>(keys, {s.count, width}, "keys"));
}

void before_of(const Slices& s, In keys, int64_t width, In mass, In counts) {
  sampling_before(s.checked(), at<uint64_t>(keys, {s.count, width}, "keys"), width,
                  at<uint64_t>(mass, {s.count, width}, "mass"),
                  at<uint32_t>(counts, {s.count, width}, "counts"));
}

void histogram_of(const Slices& s, In prefix, int shift, In mass, In counts) {
  sampling_histogram(s.checked(), at<uint32_t>(prefix, {s.count}, "prefix"), shift,
                     at<uint64_t>(mass, {s.count, 256}, "mass"),
                     at<uint32_t>(counts, {s.count, 256}, "counts"));
}

void nth_tie_of(const Slices& s, In order, In nth, In ids) {
  sampling_nth_tie(s.checked(), at<uint32_t>(order, {s.count}, "order"),
                   at<int64_t>(nth, {s.count}, "nth"), at<uint32_t>(ids, {s.count}, "ids"));
}

}  // namespace

void bind_sampling(py::module_& m) {
  bind_rows(m);
  bind_slices(m, "typical_mask", typical_mask_of);
  bind_slices(m, "typical_sums", typical_sums_of);
  bind_slices(m, "typical_before", typical_before_of);
  bind_slices(m, "typical_histogram", typical_histogram_of);
  bind_slices(m, "typical_keep", typical_keep_of);
  bind_slices(m, "sampling_perturbed", perturbed_of);
  bind_slices(m, "sampling_top", top_of);
  bind_slices(m, "sampling_before", before_of);
  bind_slices(m, "sampling_histogram", histogram_of);
  bind_slices(m, "sampling_nth_tie", nth_tie_of);
  m.def(
      "sampling_choose",
      [](In rows, In indices, int64_t count, In keys, int64_t width, In totals, In choices) {
        const SlicedRows of = Slices{{}, 0, 0, 0, rows, indices, count}.checked();
        auto* const found = at<uint64_t>(keys, {count, width}, "keys");
        for (int64_t i = 0; i < count; ++i) {
          const uint64_t* const first = found + i * width;
          if (of.rows[of.indices[i]].top_k == 0 ||
              std::all_of(first, first + width, [](uint64_t key) { return key == 0; }))
            throw std::invalid_argument("keys: a row without a token to choose");
        }
        sampling_choose(of, found, width, at<uint64_t>(totals, {count}, "totals"),
                        at<Choice>(choices, {count}, "choices"));
      },
      NoGil());
}

}  // namespace bitlens
