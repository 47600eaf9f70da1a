// What kernels on rows share: activations as they are stored, and the reductions of
// csrc/spec/reductions.h by all threads of a block.
#pragma once

#include "../spec/formats.h"
#include "../spec/reductions.h"
#include "device.h"

namespace bitlens::cuda {

constexpr int kF32 = 0, kBF16 = 1;  // how activations are stored, as in csrc/cpu/types.h
constexpr int kRowThreads = 256;
constexpr int kGroups = kRowThreads / spec::kLanes;  // blocks of 256 elements reduced at a time
constexpr int kElementThreads = 256;
constexpr int64_t kElementBlocks = 4096;

__device__ inline float load(const float* p) { return *p; }
__device__ inline float load(const uint16_t* p) { return spec::widen_bf16(*p); }
__device__ inline void store(float* p, float x) { *p = x; }
__device__ inline void store(uint16_t* p, float x) { *p = spec::round_bf16(x); }

// x as it is after it was stored as a T.
__device__ inline float rounded(const float*, float x) { return x; }
__device__ inline float rounded(const uint16_t*, float x) {
  return spec::widen_bf16(spec::round_bf16(x));
}

// body(zero), a zero of the type that activations of this dtype are stored as.
template <typename Body>
int with_dtype(int dtype, Body body) {
  return dtype == kF32 ? body(0.0f) : body(uint16_t{0});
}

// The same of two dtypes.
template <typename Body>
int with_dtypes(int first, int second, Body body) {
  return with_dtype(first, [&](auto one) {
    return with_dtype(second, [&](auto other) { return body(one, other); });
  });
}

inline dim3 element_grid(int64_t count) {
  const int64_t blocks = (count + kElementThreads - 1) / kElementThreads;
  return dim3(static_cast<unsigned>(blocks < kElementBlocks ? blocks : kElementBlocks));
}

// body(i) for every i below count, over the whole grid.
template <typename Body>
__device__ inline void for_elements(int64_t count, Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kElementThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kElementThreads + threadIdx.x;
  for (; i < count; i += step) body(i);
}

// acc = f(i, acc) along a row, half a warp a block of 256: lane j takes j, j + 16, ... Every thread
// of the block comes here and gets the total; `sums` is shared memory for kGroups floats.
template <typename F>
__device__ inline float row_reduce(int64_t begin, int64_t end, float* sums, F f) {
  const int t = static_cast<int>(threadIdx.x), lane = t % spec::kLanes, group = t / spec::kLanes;
  float total = 0.0f;
  for (int64_t base = begin; base < end; base += kGroups * spec::kRowBlock) {
    const int64_t start = base + group * spec::kRowBlock;
    float acc = 0.0f;
    for (int64_t i = start + lane; i < start + spec::kRowBlock && i < end; i += spec::kLanes)
      acc = f(i, acc);
    for (int width = spec::kLanes / 2; width > 0; width /= 2)
      acc = acc + __shfl_xor_sync(0xffffffffu, acc, width);
    if (lane == 0) sums[group] = acc;
    __syncthreads();
    for (int b = 0; b < kGroups && base + b * spec::kRowBlock < end; ++b)
      total = base == begin && b == 0 ? sums[0] : total + sums[b];
    __syncthreads();
  }
  return total;
}

// The largest of f(i) by all threads of the block; NaN is passed over. `sums` as above.
template <typename F>
__device__ inline float row_max(int64_t begin, int64_t end, float* sums, F f) {
  const int t = static_cast<int>(threadIdx.x);
  float best = spec::float_of(0xff800000u);
  for (int64_t i = begin + t; i < end; i += kRowThreads) {
    const float x = f(i);
    best = x > best ? x : best;
  }
  for (int width = spec::kLanes / 2; width > 0; width /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, best, width);
    best = other > best ? other : best;
  }
  if (t % spec::kLanes == 0) sums[t / spec::kLanes] = best;
  __syncthreads();
  for (int b = 0; b < kGroups; ++b) best = sums[b] > best ? sums[b] : best;
  __syncthreads();
  return best;
}

}  // namespace bitlens::cuda
