// The exact sampler: from a row of logits to its token, a thread block a row (docs/numerics.md,
// Sampling; csrc/spec/sampling.h and typical.h). The records are those of csrc/cpu/sampling.h.
#include "library.h"
#include "sampling_tokens.h"

namespace bitlens::cuda {
namespace {

// Tokens that the filters before typical_p keep, or with it.
struct Filter {
  uint64_t threshold;
  bool typical;
  uint32_t centre;
  uint64_t typical_threshold;

  __device__ uint64_t typical_key(const Tokens& tokens, int64_t i) const {
    return spec::typical_key_of(tokens.key(i), tokens.row.x_max, centre);
  }
  __device__ Counter kept(const Tokens& tokens, int64_t i) const {
    if (tokens.key(i) < threshold) return 0;
    const Counter w = tokens.kept(i);
    return w != 0 && typical && typical_key(tokens, i) < typical_threshold ? 0 : w;
  }
};

__device__ Counter limit_of(float p, Counter total) {
  return p < 1.0f ? spec::nucleus_limit(p, total) : ~Counter{0};
}

__device__ inline Counter lesser(Counter a, Counter b) { return a < b ? a : b; }

// The key of the last token that min-p, top-k and top-p keep.
__device__ uint64_t threshold_of(const Tokens& tokens, SampleShared* shared) {
  const int64_t n = tokens.n;
  const auto key = [&](int64_t i) { return tokens.key(i); };
  const auto one = [&](int64_t i) { return static_cast<Counter>(tokens.kept(i) != 0); };
  const Counter count = sum_over(shared, n, one);
  const Counter mass = sum_over(shared, n, [&](int64_t i) { return tokens.kept(i); });
  uint64_t first_k = 0;
  if (tokens.row.top_k > 0 && tokens.row.top_k < count)
    first_k = select(shared, n, tokens.row.top_k, key, one);
  const auto weight = [&](int64_t i) {
    return tokens.key(i) >= first_k ? tokens.kept(i) : Counter{0};
  };
  const Counter of_k = first_k == 0 ? mass : sum_over(shared, n, weight);
  const Counter limit = limit_of(tokens.row.top_p, tokens.row.joint != 0 ? mass : of_k);
  if (limit < of_k) return select(shared, n, limit, key, weight);
  if (first_k != 0) return first_k;
  Counter least = ~Counter{0};
  for (int64_t i = threadIdx.x; i < n; i += kSampleThreads)
    if (tokens.kept(i) != 0) least = lesser(least, tokens.key(i));
  return block_min(shared, least);
}

// The order of typical_p, and the last token that it keeps.
__device__ Filter with_typical(const Tokens& tokens, Filter filter, SampleShared* shared) {
  const auto kept = [&](const Tokens& each, int64_t i) { return filter.kept(each, i); };
  const GapSums sums = gap_sums(tokens, shared, kept);
  filter.centre = spec::typical_centre(sums.gaps, sums.mass);
  const Counter limit = lesser(limit_of(tokens.row.typical_p, sums.mass), sums.mass);
  filter.typical_threshold = select(
      shared, tokens.n, limit, [&](int64_t i) { return filter.typical_key(tokens, i); },
      [&](int64_t i) { return filter.kept(tokens, i); });
  filter.typical = true;
  return filter;
}

// The kept token of largest score, of equals the smallest id.
__device__ int64_t choose(const Tokens& tokens, const Filter& filter, SampleShared* shared) {
  const spec::NoiseKey noise = {tokens.row.seed, tokens.row.position, tokens.row.draw,
                                tokens.row.domain};
  int64_t best = INT64_MIN, chosen = -1;
  for (int64_t i = threadIdx.x; i < tokens.n; i += kSampleThreads) {
    if (filter.kept(tokens, i) == 0) continue;
    const uint64_t r = spec::noise_bits(noise, static_cast<uint32_t>(i));
    const int64_t score = spec::score(tokens.x[i] - tokens.row.x_max, r);
    if (chosen < 0 || score > best) best = score, chosen = i;
  }
  // Of scores the largest is the smallest of this, threads without a token being last.
  const Counter rank = ~(static_cast<Counter>(best) ^ (Counter{1} << 63));
  const Counter least = block_min(shared, rank);
  const bool ahead = chosen >= 0 && rank == least;
  return static_cast<int64_t>(
      block_min(shared, ahead ? static_cast<Counter>(chosen) : ~Counter{0}));
}

// What the certificate says beside the token.
__device__ void describe(const Tokens& tokens, const Filter& filter, int64_t chosen,
                         SampleShared* shared, Sampled* out) {
  const auto mass = [&](int64_t i) { return filter.kept(tokens, i); };
  const auto is_before = [&](int64_t i) {
    return filter.typical ? filter.typical_key(tokens, i) > filter.typical_key(tokens, chosen)
                          : tokens.key(i) > tokens.key(chosen);
  };
  const Counter total = sum_over(shared, tokens.n, mass);
  const Counter kept =
      sum_over(shared, tokens.n, [&](int64_t i) { return static_cast<Counter>(mass(i) != 0); });
  const Counter before =
      sum_over(shared, tokens.n, [&](int64_t i) { return is_before(i) ? mass(i) : Counter{0}; });
  const Counter rank = sum_over(shared, tokens.n, [&](int64_t i) {
    return static_cast<Counter>(is_before(i) && mass(i) != 0);
  });
  const Counter support = sum_over(shared, tokens.n, [&](int64_t i) { return tokens.weight(i); });
  if (threadIdx.x != 0) return;
  *out = {tokens.key(chosen),
          total,
          before,
          filter.threshold,
          filter.typical ? filter.typical_threshold : 0,
          filter.typical ? filter.centre : 0,
          static_cast<uint32_t>(kept),
          static_cast<uint32_t>(rank),
          0,
          support,
          tokens.row.x_max,
          spec::logprob(tokens.x[chosen], tokens.row.x_max, support)};
}

__global__ void __launch_bounds__(kSampleThreads)
    sample(const float* logits, const float* temperature, const SampleRow* rows, int64_t n,
           float* scaled, Sampled* out, const int32_t* listed, int64_t width, uint64_t* keys) {
  BL_SHARED(SampleShared, shared, 1);
  const int64_t at = blockIdx.x * n;
  Tokens tokens = {scaled + at, n, 0, rows[blockIdx.x]};
  const bool good =
      prepare(logits + at, n, temperature[blockIdx.x], scaled + at, shared, &tokens.row.x_max);
  if (!good || !(tokens.row.x_max > spec::float_of(0xff800000u))) {
    if (threadIdx.x == 0) out[blockIdx.x] = {};
    return;
  }
  Filter filter = {threshold_of(tokens, shared), false, 0, 0};
  if (tokens.row.typical_p < 1.0f) filter = with_typical(tokens, filter, shared);
  describe(tokens, filter, choose(tokens, filter, shared), shared, out + blockIdx.x);
  const int32_t count = listed == nullptr ? 0 : listed[blockIdx.x];
  tokens.row.min_weight = 1;  // lists come before the filters
  if (count > 0) list_first(tokens, static_cast<Counter>(count), shared, keys + blockIdx.x * width);
}

// The edits of one row in their order, a barrier between them. One thread block.
__global__ void __launch_bounds__(kSampleThreads)
    sample_edit(float* row, int64_t n, int64_t first_id, SampleEdits edits) {
  const float minus_infinity = spec::float_of(0xff800000u);
  const auto each = [&](const int64_t* ids, int64_t count, auto edit) {
    for (int64_t i = threadIdx.x; i < count; i += kSampleThreads) {
      const int64_t at = ids[i] - first_id;
      if (at >= 0 && at < n) edit(row[at], i);
    }
    __syncthreads();
  };
  for (int64_t i = threadIdx.x; edits.allowed != nullptr && i < n; i += kSampleThreads) {
    int64_t low = 0, high = edits.n_allowed;  // the first allowed id that is not below this one
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      edits.allowed[middle] < first_id + i ? low = middle + 1 : high = middle;
    }
    if (low == edits.n_allowed || edits.allowed[low] != first_id + i) row[i] = minus_infinity;
  }
  __syncthreads();
  each(edits.bias_ids, edits.n_bias, [&](float& x, int64_t i) { x = x + edits.bias[i]; });
  each(edits.banned, edits.n_banned, [&](float& x, int64_t) { x = minus_infinity; });
  each(edits.seen, edits.n_seen, [&](float& x, int64_t i) {
    x = spec::penalize(x, true, edits.output_counts[i], edits.repetition, edits.frequency,
                       edits.presence);
  });
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_sample(const float* logits, const float* temperature, const SampleRow* rows, int64_t count,
               int64_t n, float* scaled, Sampled* out, const int32_t* listed, int64_t width,
               uint64_t* keys, void* stream) {
  return launch(Kernel::SAMPLE, sample, dim3(static_cast<unsigned>(count)), kSampleThreads, 0,
                stream, logits, temperature, rows, n, scaled, out, listed, width, keys);
}

int blc_sample_edit(float* row, int64_t n, int64_t first_id, const SampleEdits* edits,
                    void* stream) {
  return launch(Kernel::SAMPLE_EDIT, sample_edit, dim3(1), kSampleThreads, 0, stream, row, n,
                first_id, *edits);
}
