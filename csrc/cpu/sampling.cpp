#include "sampling.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "../spec/rope.h"
#include "../spec/typical.h"
#include "for_each_row.h"
#include "kernels.h"
#include "typical.h"

namespace bitlens {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kFoundCapacity = 32;  // survivors of a scan before its bound is tightened
constexpr int64_t kSpareKeys = 512;

// No token of x at or below it has min_weight: one fp32 number lower than fp64 says, less a margin
// of 2^-12 for the roundings of x - x_max (2^-19) and exp (2^-23).
float weight_floor(const Slice& s) {
  const double least = (static_cast<double>(s.min_weight) - 0.5) * 0x1p-44;
  const double x = static_cast<double>(s.x_max) + (spec::log_f64(least) - 0x1p-12);
  const float rounded = static_cast<float>(std::max(x, -0x1.fffffep+127));
  return spec::x_of_order_bits(spec::order_bits(rounded) - 1);
}

// The m best of what was offered, best first: larger score, then smaller id.
class Best {
 public:
  Best(Scored* best, int64_t m) : best_(best), m_(m) {
    std::fill(best, best + m, Scored{std::numeric_limits<int64_t>::min(), 0});
  }

  void offer(Scored x) {
    int64_t i = m_;
    for (; i > 0 && ahead(x, best_[i - 1]); --i)
      if (i < m_) best_[i] = best_[i - 1];
    if (i < m_) best_[i] = x;
  }

  // A token with v >= e * scale has a score below the last of these. E >= v, and score * 2^-40 is
  // within half a step of d - ln E; the factor covers the fp32 roundings of e, v and scale.
  float scale() const {
    const Scored& last = best_[m_ - 1];
    if (last.key == 0) return kInfinity;
    const double bound = static_cast<double>(last.score - 1) * 0x1p-40;
    return static_cast<float>(spec::exp_f64(-bound) * (1.0 + 0x1p-16));
  }

 private:
  static bool ahead(Scored a, Scored b) {
    if (a.score != b.score) return a.score > b.score;
    return spec::id_of_key(a.key) < spec::id_of_key(b.key);
  }

  Scored* best_;
  int64_t m_;
};

Mass perturbed_row(const RowSlice& at, int64_t m, uint64_t threshold, bool sum, Scored* best_out) {
  const SamplingKernels& k = kernels().sampling;
  const Slice& s = at.slice;
  int32_t found[kFoundCapacity];
  uint64_t keys[kFoundCapacity], weights[kFoundCapacity];
  int64_t scores[kFoundCapacity];
  Best best(best_out, m);
  const float floor =
      threshold == 0 ? weight_floor(s) : std::max(weight_floor(s), spec::x_of_key(threshold));
  NoiseScan scan = {s, at.noise, floor, kInfinity, sum, {0, 0}, found, kFoundCapacity, 0};
  for (int64_t i = 0; i < s.n;) {
    i = k.scan_noise(scan, i);
    int64_t count = 0;
    for (int64_t j = 0; j < scan.count; ++j) {
      const uint64_t key =
          spec::order_key(s.x[found[j]], s.first_id + static_cast<uint32_t>(found[j]));
      if (key >= threshold) keys[count++] = key;
    }
    k.terms(keys, count, s.x_max, at.noise, weights, scores);
    for (int64_t j = 0; j < count; ++j)
      if (weights[j] >= s.min_weight) best.offer({scores[j], keys[j]});
    scan.scale = best.scale();
    scan.count = 0;
  }
  return scan.mass;
}

void top_row(const RowSlice& at, int64_t k, int64_t width, uint64_t* out) {
  const Slice& s = at.slice;
  k = std::min(k, s.n);
  const int64_t capacity = 2 * k + kSpareKeys;
  thread_local std::vector<uint64_t> keys;
  keys.resize(static_cast<size_t>(capacity));
  const auto descending = std::greater<uint64_t>();
  float above = weight_floor(s);
  int64_t count = 0;
  for (int64_t i = 0; i < s.n && k > 0;) {
    i = kernels().sampling.collect(s, i, above, keys.data(), capacity, &count);
    if (count <= k) continue;
    // Later tokens have larger ids, so those that only equal the k-th are behind it.
    std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.begin() + count, descending);
    above = spec::x_of_key(keys[static_cast<size_t>(k - 1)]);
    count = k;
  }
  std::sort(keys.begin(), keys.begin() + count, descending);
  std::copy(keys.begin(), keys.begin() + count, out);
  std::fill(out + count, out + width, uint64_t{0});
}

uint64_t limit_of(float p, uint64_t total) {
  return p < 1.0f ? spec::nucleus_limit(p, total) : std::numeric_limits<uint64_t>::max();
}

// How many tokens there are before the mass reaches the limit.
int64_t count_within(const uint64_t* weights, int64_t count, uint64_t limit) {
  uint64_t mass = 0;
  int64_t i = 0;
  for (; i < count && mass < limit; ++i) mass += weights[i];
  return i;
}

bool has_min_weight(const SamplingRow& row, uint64_t key) {
  return row.min_weight <= 1 || spec::weight(spec::x_of_key(key), row.x_max) >= row.min_weight;
}

// keys: descending, the first 0 ends them; their order may change.
Choice choose_row(const RowSlice& at, uint64_t* keys, int64_t width, uint64_t total) {
  const SamplingRow& row = at.row;
  int64_t count = 0;
  while (count < width && count < static_cast<int64_t>(row.top_k) && keys[count] != 0 &&
         has_min_weight(row, keys[count]))
    ++count;
  thread_local std::vector<uint64_t> weights;
  thread_local std::vector<int64_t> scores;
  weights.resize(static_cast<size_t>(count));
  scores.resize(static_cast<size_t>(count));
  kernels().sampling.terms(keys, count, row.x_max, at.noise, weights.data(), scores.data());
  if (row.joint == 0) {
    total = 0;
    for (const uint64_t w : weights) total += w;
  }
  Choice choice{};
  count = count_within(weights.data(), count, limit_of(row.top_p, total));
  choice.threshold_key = keys[count - 1];
  if (row.typical_p < 1.0f) {
    const TypicalOrder order =
        typical_order({keys, weights.data(), scores.data(), count}, row.x_max);
    count = count_within(weights.data(), count, limit_of(row.typical_p, order.mass));
    choice.centre = order.centre;
    choice.typical_key = spec::typical_key_of(keys[count - 1], row.x_max, order.centre);
  }
  int64_t best = std::numeric_limits<int64_t>::min();
  for (int64_t i = 0; i < count; ++i) {
    const auto at_i = static_cast<size_t>(i);
    const bool smaller_id = spec::id_of_key(keys[i]) < spec::id_of_key(choice.key);
    if (i == 0 || scores[at_i] > best || (scores[at_i] == best && smaller_id)) {
      best = scores[at_i];
      choice.key = keys[i];
      choice.rank = static_cast<uint32_t>(i);
      choice.mass_before = choice.mass;
    }
    choice.mass += weights[at_i];
    ++choice.kept;
  }
  return choice;
}

}  // namespace

void sampling_edit(float* row, int64_t n, uint32_t first_id, const LogitEdits& edits) {
  const FloatEnvironment environment;
  const auto each = [&](const int64_t* ids, int64_t count, auto&& edit) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = ids[i] - static_cast<int64_t>(first_id);
      if (at >= 0 && at < n) edit(row[at], i);
    }
  };
  if (edits.allowed != nullptr) {
    const int64_t* end = edits.allowed + edits.n_allowed;
    const int64_t* next = std::lower_bound(edits.allowed, end, static_cast<int64_t>(first_id));
    for (int64_t i = 0; i < n; ++i) {
      const bool allowed = next != end && *next == static_cast<int64_t>(first_id) + i;
      allowed ? static_cast<void>(++next) : static_cast<void>(row[i] = -kInfinity);
    }
  }
  each(edits.bias_ids, edits.n_bias, [&](float& l, int64_t i) { l = l + edits.bias[i]; });
  each(edits.banned, edits.n_banned, [&](float& l, int64_t) { l = -kInfinity; });
  each(edits.seen, edits.n_seen, [&](float& l, int64_t i) {
    l = spec::penalize(l, true, edits.output_counts[i], edits.repetition, edits.frequency,
                       edits.presence);
  });
}

void sampling_prepare(const void* logits, LogitType type, int64_t rows, int64_t n, int64_t stride,
                      const float* temperature, float* x, float* max, uint8_t* bad) {
  const int64_t bytes = type == LogitType::F32 ? 4 : 2;
  for_each_row(rows, [&](int64_t r) {
    const Summary summary =
        kernels().sampling.prepare(static_cast<const uint8_t*>(logits) + r * stride * bytes, type,
                                   n, temperature[r], x == nullptr ? nullptr : x + r * n);
    max[r] = summary.max;
    bad[r] = summary.bad;
  });
}

void sampling_perturbed(const SlicedRows& rows, int64_t m, const uint64_t* thresholds, Scored* best,
                        Mass* mass) {
  for_each_row(rows.count, [&](int64_t i) {
    const uint64_t threshold = thresholds == nullptr ? 0 : thresholds[i];
    const Mass sums = perturbed_row(row_at(rows, i), m, threshold, mass != nullptr, best + i * m);
    if (mass != nullptr) mass[i] = sums;
  });
}

void sampling_top(const SlicedRows& rows, const int64_t* k, int64_t width, uint64_t* keys) {
  for_each_row(rows.count,
               [&](int64_t i) { top_row(row_at(rows, i), k[i], width, keys + i * width); });
}

void sampling_choose(const SlicedRows& rows, uint64_t* keys, int64_t width, const uint64_t* totals,
                     Choice* choices) {
  for_each_row(rows.count, [&](int64_t i) {
    uint64_t* const first = keys + i * width;
    std::sort(first, first + width, std::greater<uint64_t>());
    choices[i] = choose_row(row_at(rows, i), first, width, totals[i]);
  });
}

void sampling_before(const SlicedRows& rows, const uint64_t* keys, int64_t width, uint64_t* mass,
                     uint32_t* count) {
  for_each_row(rows.count, [&](int64_t i) {
    kernels().sampling.before(row_at(rows, i).slice, keys + i * width, width, mass + i * width,
                              count + i * width);
  });
}

void sampling_histogram(const SlicedRows& rows, const uint32_t* prefix, int shift, uint64_t* mass,
                        uint32_t* count) {
  for_each_row(rows.count, [&](int64_t i) {
    std::fill(mass + i * 256, mass + (i + 1) * 256, uint64_t{0});
    std::fill(count + i * 256, count + (i + 1) * 256, 0u);
    kernels().sampling.histogram(row_at(rows, i).slice, prefix[i], shift, mass + i * 256,
                                 count + i * 256);
  });
}

void sampling_nth_tie(const SlicedRows& rows, const uint32_t* order, const int64_t* nth,
                      uint32_t* ids) {
  for_each_row(rows.count, [&](int64_t i) {
    const Slice s = row_at(rows, i).slice;
    int64_t left = nth[i];
    ids[i] = std::numeric_limits<uint32_t>::max();
    for (int64_t j = 0; j < s.n && left > 0; ++j)
      if (spec::order_bits(s.x[j]) == order[i] && --left == 0)
        ids[i] = s.first_id + static_cast<uint32_t>(j);
  });
}

void sampling_terms(const uint64_t* keys, int64_t count, float x_max, const spec::NoiseKey& noise,
                    uint64_t* weights, int64_t* scores) {
  const FloatEnvironment environment;
  kernels().sampling.terms(keys, count, x_max, noise, weights, scores);
}

int64_t sampling_score(float d, uint64_t r) {
  const FloatEnvironment environment;
  return spec::score(d, r);
}

void sampling_logprobs(const uint64_t* keys, const float* x_max, const uint64_t* totals,
                       int64_t count, float* out) {
  const FloatEnvironment environment;
  for (int64_t i = 0; i < count; ++i)
    out[i] = spec::logprob(spec::x_of_key(keys[i]), x_max[i], totals[i]);
}

}  // namespace bitlens
