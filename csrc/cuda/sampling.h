// What a block of threads does together over one row of the sampler: sums, extremes, and selection
// by digits. Everything is an integer, so no order shows (docs/numerics.md, Sampling).
#pragma once

#include <cstdint>

#include "rows.h"

namespace bitlens::cuda {

constexpr int kSampleThreads = 256;  // a thread a bin of a histogram of bytes
using Counter = unsigned long long;

// Shared memory of one row.
struct SampleShared {
  Counter bins[kSampleThreads];
  Counter found, before;
};

__device__ inline Counter block_sum(SampleShared* shared, Counter mine) {
  if (threadIdx.x == 0) shared->found = 0;
  __syncthreads();
  atomicAdd(&shared->found, mine);
  __syncthreads();
  const Counter sum = shared->found;
  __syncthreads();
  return sum;
}

__device__ inline Counter block_min(SampleShared* shared, Counter mine) {
  shared->bins[threadIdx.x] = mine;
  __syncthreads();
  Counter least = shared->bins[0];
  for (int i = 1; i < kSampleThreads; ++i)
    least = shared->bins[i] < least ? shared->bins[i] : least;
  __syncthreads();
  return least;
}

// The sum over the tokens of one row that are visited.
template <typename Measure>
__device__ Counter sum_over(SampleShared* shared, int64_t n, Measure measure) {
  Counter mine = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSampleThreads) mine += measure(i);
  return block_sum(shared, mine);
}

// The largest key of which this and all larger ones have a measure of `limit` together, byte by
// byte; limit is at least 1 and at most what there is. key_of(i) is looked at where measure(i) is
// not 0.
template <typename Key, typename Measure>
__device__ uint64_t select(SampleShared* shared, int64_t n, Counter limit, Key key_of,
                           Measure measure) {
  uint64_t prefix = 0;
  Counter before = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    shared->bins[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += kSampleThreads) {
      const Counter amount = measure(i);
      if (amount == 0) continue;
      const uint64_t key = key_of(i);
      if (shift == 56 || key >> (shift + 8) == prefix)
        atomicAdd(&shared->bins[key >> shift & 255u], amount);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = kSampleThreads - 1;
      for (; bin > 0 && before + shared->bins[bin] < limit; --bin) before += shared->bins[bin];
      shared->found = static_cast<Counter>(bin);
      shared->before = before;
    }
    __syncthreads();
    prefix = prefix << 8 | shared->found;
    before = shared->before;
    __syncthreads();
  }
  return prefix;
}

}  // namespace bitlens::cuda
