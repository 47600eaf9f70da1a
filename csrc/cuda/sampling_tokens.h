// One row of the sampler, whole or a slice of the vocabulary: its tokens as integers, and what is
// first done with them (csrc/spec/sampling.h
// and typical.h).
#pragma once

#include "../spec/typical.h"
#include "library.h"
#include "sampling.h"

namespace bitlens::cuda {

// A row's logits after edits and temperature, of ids first_id and on.
struct Tokens {
  const float* x;
  int64_t n;
  uint32_t first_id;
  SampleRow row;

  __device__ uint32_t id(int64_t i) const { return first_id + static_cast<uint32_t>(i); }
  __device__ uint64_t key(int64_t i) const { return spec::order_key(x[i], id(i)); }
  __device__ Counter weight(int64_t i) const { return spec::weight(x[i], row.x_max); }
  // The weight where min-p keeps the token, else 0.
  __device__ Counter kept(int64_t i) const {
    const Counter w = weight(i);
    return w >= row.min_weight ? w : 0;
  }
};

// x = l / T + 0 and its maximum; false for a row with NaN or +inf.
__device__ inline bool prepare(const float* logits, int64_t n, float temperature, float* x,
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
  return bad == 0;
}

// The keys of the first `count` tokens that have a weight, in no order; zeros where there are
// fewer.
__device__ inline void list_first(const Tokens& tokens, Counter count, SampleShared* shared,
                                  uint64_t* keys) {
  const auto one = [&](int64_t i) { return static_cast<Counter>(tokens.kept(i) != 0); };
  const auto key = [&](int64_t i) { return tokens.key(i); };
  const Counter there = sum_over(shared, tokens.n, one);
  const uint64_t last = count < there ? select(shared, tokens.n, count, key, one) : 0;
  if (threadIdx.x == 0) shared->found = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < tokens.n; i += kSampleThreads)
    if (tokens.key(i) >= last && one(i) != 0)
      keys[atomicAdd(&shared->found, Counter{1})] = tokens.key(i);
  for (Counter i = there + threadIdx.x; i < count; i += kSampleThreads) keys[i] = 0;
}

// The mass of tokens and their sum of weight * gap.
struct GapSums {
  Counter mass;
  unsigned __int128 gaps;
};

// Of the weights that kept(tokens, i) gives.
template <typename Kept>
__device__ GapSums gap_sums(const Tokens& tokens, SampleShared* shared, Kept kept) {
  Counter sums[4] = {};  // of weights, and of the 32-bit digits of weight * gap
  for (int64_t i = threadIdx.x; i < tokens.n; i += kSampleThreads) {
    const Counter w = kept(tokens, i);
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
  return {sums[0], static_cast<unsigned __int128>(sums[1]) +
                       (static_cast<unsigned __int128>(sums[2]) << 32) +
                       (static_cast<unsigned __int128>(sums[3]) << 64)};
}

}  // namespace bitlens::cuda
