// Elements of a row that are kept, in their order, by all threads of a block.
#pragma once

#include "rows.h"

namespace bitlens::cuda {

constexpr int kWarpSize = 32, kRowWarps = kRowThreads / kWarpSize;

// put(slot, i) for every i below n that is kept, slots ascending with i. Every thread of the block
// comes here and gets their number; `counts` is shared memory for kRowWarps numbers.
template <typename Keep, typename Put>
__device__ int64_t compact(int64_t n, unsigned* counts, Keep keep, Put put) {
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  int64_t written = 0;
  for (int64_t base = 0; base < n; base += kRowThreads) {
    const int64_t i = base + threadIdx.x;
    const bool kept = i < n && keep(i);
    const unsigned votes = __ballot_sync(0xffffffffu, kept);
    if (lane == 0) counts[warp] = static_cast<unsigned>(__popc(votes));
    __syncthreads();
    int64_t slot = written + __popc(votes & ((1u << lane) - 1));
    for (unsigned w = 0; w < kRowWarps; ++w) {
      if (w < warp) slot += counts[w];
      written += counts[w];
    }
    if (kept) put(slot, i);
    __syncthreads();
  }
  return written;
}

}  // namespace bitlens::cuda
