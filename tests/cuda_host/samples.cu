// samples CASE: small kernels that are right, and the same with one fault each, under the executor.
// Prints "same", "differs", or the executor's error.
#include <cstdio>
#include <string>
#include <vector>

#include "cuda/device.h"

namespace {

constexpr int kThreads = 128;

__global__ void reverse(const float* x, float* y, bool has_barrier) {
  BL_SHARED(float, row, kThreads);
  const int t = static_cast<int>(threadIdx.x);
  row[t] = x[t];
  if (has_barrier) __syncthreads();
  y[t] = row[kThreads - 1 - t];
}

// Two buffers: the next element is on its way while this one is used.
__global__ void stream_copy(const float* x, float* y, int steps, bool waits) {
  BL_SHARED(float, buffer, 2 * kThreads);
  const int t = static_cast<int>(threadIdx.x);
  __pipeline_memcpy_async(buffer + t, x + t, sizeof(float));
  __pipeline_commit();
  for (int s = 0; s < steps; ++s) {
    if (s + 1 < steps)
      __pipeline_memcpy_async(buffer + (s + 1) % 2 * kThreads + t, x + (s + 1) * kThreads + t,
                              sizeof(float));
    __pipeline_commit();
    if (waits) __pipeline_wait_prior(1);
    y[s * kThreads + t] = buffer[s % 2 * kThreads + t];
  }
}

__global__ void warp_sums(const float* x, float* y, bool diverges) {
  const int t = static_cast<int>(threadIdx.x);
  float sum = x[t];
  for (int width = 16; width > 0; width /= 2)
    if (!diverges || t % 32 < 20) sum += __shfl_xor_sync(~0u, sum, width);
  y[t] = sum;
}

// Lanes of both halves of a warp meet at the same time, each half by itself.
__global__ void half_warp_sums(const float* x, float* y, bool wrong_mask) {
  const int t = static_cast<int>(threadIdx.x);
  const bool high = t % 32 >= 16;
  const unsigned mask = high && !wrong_mask ? 0xffff0000u : 0x0000ffffu;
  float sum = x[t];
  if (high) {
    for (int width = 8; width > 0; width /= 2) sum += __shfl_xor_sync(mask, sum, width);
  } else {
    for (int width = 8; width > 0; width /= 2) sum += __shfl_xor_sync(mask, sum, width);
  }
  y[t] = sum;
}

__global__ void unlike_collectives(const float* x, float* y, bool unlike) {
  const int t = static_cast<int>(threadIdx.x);
  y[t] = x[t];
  if (unlike && t % 2 == 0)
    y[t] += static_cast<float>(__ballot_sync(~0u, 1) != 0);
  else
    y[t] += __shfl_sync(~0u, 1.0f, 0);
}

__global__ void count_signs(const float* x, unsigned* counts, bool atomic) {
  BL_SHARED(unsigned, bins, 2);
  const int t = static_cast<int>(threadIdx.x);
  if (t < 2) bins[t] = 0;
  __syncthreads();
  unsigned* bin = bins + (x[t] > 0.0f);
  if (atomic)
    atomicAdd(bin, 1u);
  else
    *bin = *bin + 1;
  __syncthreads();
  if (t < 2) atomicAdd(counts + t, bins[t]);
}

__global__ void through_dynamic(const float* x, float* y) {
  BL_DYNAMIC_SHARED(float, row);
  const int t = static_cast<int>(threadIdx.x);
  row[t] = x[t];
  __syncthreads();
  y[t] = row[t ^ 1];
}

struct Data {
  static constexpr int kSteps = 3;
  std::vector<float> x = std::vector<float>(kSteps * kThreads), y = x, want = x;
  unsigned counts[2] = {};

  Data() {
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37) % 101) - 50.0f;
  }
  void want_sums(int width) {
    for (int t = 0; t < kThreads; ++t)
      for (int i = 0; i < width; ++i) want[t] += x[t / width * width + i];
  }
  void want_reading(int (*index)(int), int count) {
    for (int t = 0; t < count; ++t) want[t] = x[index(t)];
  }
};

template <typename... P, typename... A>
void run(void (*kernel)(P...), size_t shared, A... arguments) {
  host_cuda::run_grid(1, kThreads, shared, [=] { kernel(arguments...); });
}

bool is_right(const std::string& name, bool sound) {
  Data d;
  if (name == "barrier") {
    run(reverse, 0, d.x.data(), d.y.data(), sound);
    d.want_reading([](int t) { return kThreads - 1 - t; }, kThreads);
  } else if (name == "copy") {
    run(stream_copy, 0, d.x.data(), d.y.data(), Data::kSteps, sound);
    d.want = d.x;
  } else if (name == "shuffle") {
    run(warp_sums, 0, d.x.data(), d.y.data(), !sound);
    d.want_sums(32);
  } else if (name == "mask") {
    run(half_warp_sums, 0, d.x.data(), d.y.data(), !sound);
    d.want_sums(16);
  } else if (name == "collective") {
    run(unlike_collectives, 0, d.x.data(), d.y.data(), !sound);
    for (int t = 0; t < kThreads; ++t) d.want[t] = d.x[t] + 1.0f;
  } else if (name == "atomic") {
    run(count_signs, 0, d.x.data(), d.counts, sound);
    unsigned positive = 0;
    for (int t = 0; t < kThreads; ++t) positive += d.x[t] > 0.0f;
    return d.counts[1] == positive && d.counts[0] == kThreads - positive;
  } else {
    run(through_dynamic, (kThreads - (sound ? 0 : 1)) * sizeof(float), d.x.data(), d.y.data());
    d.want_reading([](int t) { return t ^ 1; }, kThreads);
  }
  return std::memcmp(d.y.data(), d.want.data(), d.y.size() * sizeof(float)) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    std::puts(is_right(argv[1], std::string(argv[2]) == "sound") ? "same" : "differs");
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
}
