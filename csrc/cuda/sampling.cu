// The exact sampler: from a row of logits to its token, a thread block a row (docs/numerics.md,
// Sampling; csrc/spec/sampling.h and typical.h). The records are those of csrc/cpu/sampling.h.
#include "../spec/sampling.h"
#include "../spec/typical.h"
#include "library.h"
#include "sampling.h"

namespace bitlens::cuda {
namespace {

struct Tokens {
  const float* x;
  int64_t n;
  SampleRow row;

  __device__ uint64_t key(int64_t i) const {
    return spec::order_key(x[i], static_cast<uint32_t>(i));
  }
  __device__ Counter weight(int64_t i) const { return spec::weight(x[i], row.x_max); }
  // The weight where min-p keeps the token, else 0.
  __device__ Counter kept(int64_t i) const {
    const Counter w = weight(i);
    return w >= row.min_weight ? w : 0;
  }
};

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

// x = l / T + 0 and its maximum; false for a row with NaN or +inf, or with no finite x.
__device__ bool prepare(const float* logits, int64_t n, float temperature, float* x,
                        SampleShared* shared, float* x_max) {
  const float infinity = spec::float_of(0x7f800000u);
  Counter bad = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSampleThreads) {
    x[i] = spec::scale_logit(logits[i], temperature);
    bad += !(logits[i] < infinity) || !(x[i] < infinity);
  }
  bad = block_sum(shared, bad);
  float* best = reinterpret_cast<float*>(shared->bins);
  *x_max = row_max(0, n, best, [&](int64_t i) { return x[i]; }) + 0.0f;
  return bad == 0 && *x_max > -infinity;
}

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
  Counter sums[4] = {};  // of weights, and of the 32-bit digits of weight * gap
  for (int64_t i = threadIdx.x; i < tokens.n; i += kSampleThreads) {
    const Counter w = filter.kept(tokens, i);
    if (w == 0) continue;
    const unsigned __int128 product =
        static_cast<unsigned __int128>(w) * spec::gap(tokens.x[i] - tokens.row.x_max);
    sums[0] += w;
    sums[1] += static_cast<uint32_t>(product);
    sums[2] += static_cast<uint32_t>(product >> 32);
    sums[3] += static_cast<uint64_t>(product >> 64);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] = block_sum(shared, sums[i]);
  const unsigned __int128 gaps = static_cast<unsigned __int128>(sums[1]) +
                                 (static_cast<unsigned __int128>(sums[2]) << 32) +
                                 (static_cast<unsigned __int128>(sums[3]) << 64);
  filter.centre = spec::typical_centre(gaps, sums[0]);
  const Counter limit = lesser(limit_of(tokens.row.typical_p, sums[0]), sums[0]);
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
           float* scaled, Sampled* out) {
  BL_SHARED(SampleShared, shared, 1);
  const int64_t at = blockIdx.x * n;
  Tokens tokens = {scaled + at, n, rows[blockIdx.x]};
  const bool valid =
      prepare(logits + at, n, temperature[blockIdx.x], scaled + at, shared, &tokens.row.x_max);
  if (!valid) {
    if (threadIdx.x == 0) out[blockIdx.x] = {};
    return;
  }
  Filter filter = {threshold_of(tokens, shared), false, 0, 0};
  if (tokens.row.typical_p < 1.0f) filter = with_typical(tokens, filter, shared);
  describe(tokens, filter, choose(tokens, filter, shared), shared, out + blockIdx.x);
}

// The edits of one row in their order, a barrier between them. One thread block.
__global__ void __launch_bounds__(kSampleThreads)
    sample_edit(float* row, int64_t n, SampleEdits edits) {
  const float minus_infinity = spec::float_of(0xff800000u);
  const auto each = [&](const int64_t* ids, int64_t count, auto edit) {
    for (int64_t i = threadIdx.x; i < count; i += kSampleThreads)
      if (ids[i] >= 0 && ids[i] < n) edit(ids[i], i);
    __syncthreads();
  };
  for (int64_t i = threadIdx.x; edits.allowed != nullptr && i < n; i += kSampleThreads) {
    int64_t low = 0, high = edits.n_allowed;  // the first allowed id that is not below i
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      edits.allowed[middle] < i ? low = middle + 1 : high = middle;
    }
    if (low == edits.n_allowed || edits.allowed[low] != i) row[i] = minus_infinity;
  }
  __syncthreads();
  each(edits.bias_ids, edits.n_bias,
       [&](int64_t id, int64_t i) { row[id] = row[id] + edits.bias[i]; });
  each(edits.banned, edits.n_banned, [&](int64_t id, int64_t) { row[id] = minus_infinity; });
  each(edits.seen, edits.n_seen, [&](int64_t id, int64_t i) {
    row[id] = spec::penalize(row[id], true, edits.output_counts[i], edits.repetition,
                             edits.frequency, edits.presence);
  });
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_sample(const float* logits, const float* temperature, const SampleRow* rows, int64_t count,
               int64_t n, float* scaled, Sampled* out, void* stream) {
  return launch(Kernel::SAMPLE, sample, dim3(static_cast<unsigned>(count)), kSampleThreads, 0,
                stream, logits, temperature, rows, n, scaled, out);
}

int blc_sample_edit(float* row, int64_t n, const SampleEdits* edits, void* stream) {
  return launch(Kernel::SAMPLE_EDIT, sample_edit, dim3(1), kSampleThreads, 0, stream, row, n,
                *edits);
}
