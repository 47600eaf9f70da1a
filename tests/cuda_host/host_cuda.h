// The words of CUDA that kernels use, for g++ and the executor. What is not here does not compile:
// there are no atomics on floating-point numbers, and no approximate functions.
#pragma once

#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "executor.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (host_cuda::self().thread)
#define blockIdx (host_cuda::block().index)
#define blockDim (host_cuda::block().block_dim)
#define gridDim (host_cuda::block().grid_dim)

inline void __syncthreads() { host_cuda::sync_threads(); }
inline void __threadfence() {}  // blocks run one after another

inline void __syncwarp(unsigned mask = ~0u) {
  const int nothing = 0;
  host_cuda::warp_exchange(mask, &nothing, sizeof nothing, "__syncwarp");
}

namespace host_cuda {

template <typename T>
T shuffle(unsigned mask, T value, unsigned source, const char* what) {
  static_assert(sizeof(T) <= kValueBytes);
  const auto* slots = warp_exchange(mask, &value, sizeof value, what);
  Unwatched u;
  if ((mask >> source & 1) == 0) fail(std::string(what) + " reads a lane outside the mask");
  T result;
  memcpy(&result, slots[source], sizeof result);
  return result;
}

}  // namespace host_cuda

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  const unsigned source = host_cuda::lane() ^ static_cast<unsigned>(bits);
  return host_cuda::shuffle(mask, value, source, "__shfl_xor_sync");
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
  return host_cuda::shuffle(mask, value, static_cast<unsigned>(source) % 32, "__shfl_sync");
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto* slots = host_cuda::warp_exchange(mask, &predicate, sizeof predicate, "__ballot_sync");
  host_cuda::Unwatched u;
  unsigned result = 0;
  for (unsigned i = 0; i < host_cuda::kWarp; ++i) {
    int p = 0;
    if (mask >> i & 1) memcpy(&p, slots[i], sizeof p);
    result |= static_cast<unsigned>(p != 0) << i;
  }
  return result;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }

// Atomics of integers, which have no order that shows.
inline unsigned atomicAdd(unsigned* at, unsigned value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
inline int atomicMax(int* at, int value) {
  int seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (seen < value && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED)) {
  }
  return seen;
}

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
  host_cuda::async_copy(to, from, bytes);
}
inline void __pipeline_commit() { host_cuda::async_commit(); }
inline void __pipeline_wait_prior(unsigned left) { host_cuda::async_wait(left); }
