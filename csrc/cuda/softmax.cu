// Softmax, logsumexp, log-softmax and cross entropy of rows: csrc/spec/softmax.h and
// csrc/spec/cross_entropy.h. A thread block a row.
#include "../spec/cross_entropy.h"
#include "../spec/softmax.h"
#include "library.h"
#include "rows.h"

namespace bitlens::cuda {
namespace {

template <typename T>
__device__ spec::SoftmaxTerms terms_of(const T* x, int64_t n, float* sums) {
  const float m0 = spec::finite_max(row_max(0, n, sums, [&](int64_t i) { return load(x + i); }));
  const float sum = row_reduce(
      0, n, sums, [&](int64_t i, float acc) { return acc + spec::exp_f32(load(x + i) - m0); });
  return {m0, sum};
}

__global__ void __launch_bounds__(kRowThreads) softmax(const float* x, int64_t n, float* out) {
  BL_SHARED(float, sums, kGroups);
  const int64_t at = blockIdx.x * n;
  const spec::SoftmaxTerms terms = terms_of(x + at, n, sums);
  const float inverse = spec::softmax_inverse(terms.sum);
  for (int64_t i = threadIdx.x; i < n; i += kRowThreads)
    out[at + i] = spec::exp_f32(x[at + i] - terms.max) * inverse;
}

__global__ void __launch_bounds__(kRowThreads) logsumexp(const float* x, int64_t n, float* out) {
  BL_SHARED(float, sums, kGroups);
  const spec::SoftmaxTerms terms = terms_of(x + blockIdx.x * n, n, sums);
  if (threadIdx.x == 0) out[blockIdx.x] = spec::logsumexp_of(terms);
}

__global__ void __launch_bounds__(kRowThreads) log_softmax(const float* x, int64_t n, float* out) {
  BL_SHARED(float, sums, kGroups);
  const int64_t at = blockIdx.x * n;
  const spec::SoftmaxTerms terms = terms_of(x + at, n, sums);
  const float log_sum = spec::log_f32(terms.sum);
  for (int64_t i = threadIdx.x; i < n; i += kRowThreads)
    out[at + i] = (x[at + i] - terms.max) - log_sum;
}

// A target that is no class and not ignored sets `bad`; its loss is NaN.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    cross_entropy(const T* logits, const int64_t* targets, int64_t n, int64_t ignored,
                  float smoothing, float* losses, int* bad) {
  BL_SHARED(float, sums, kGroups);
  const T* x = logits + blockIdx.x * n;
  const int64_t target = targets[blockIdx.x];
  const spec::SoftmaxTerms terms = terms_of(x, n, sums);
  const float sum = row_reduce(0, n, sums, [&](int64_t i, float acc) { return acc + load(x + i); });
  if (threadIdx.x != 0) return;
  float loss = 0.0f;
  if (target != ignored && (target < 0 || target >= n)) {
    atomicMax(bad, 1);
    loss = spec::float_of(0x7fc00000u);
  } else if (target != ignored) {
    loss = spec::smoothed_loss(spec::logsumexp_of(terms), load(x + target), sum, n, smoothing);
  }
  losses[blockIdx.x] = loss;
}

// The mean of the losses that are not ignored; NaN if there is none. One thread block.
__global__ void __launch_bounds__(kRowThreads)
    mean_loss(const float* losses, const int64_t* targets, int64_t rows, int64_t ignored,
              float* mean) {
  BL_SHARED(float, sums, kGroups);
  BL_SHARED(unsigned, counted, 1);
  if (threadIdx.x == 0) counted[0] = 0;
  __syncthreads();
  unsigned mine = 0;
  for (int64_t i = threadIdx.x; i < rows; i += kRowThreads) mine += targets[i] != ignored;
  atomicAdd(counted, mine);
  const float sum =
      row_reduce(0, rows, sums, [&](int64_t i, float acc) { return acc + losses[i]; });
  __syncthreads();
  if (threadIdx.x == 0) mean[0] = sum / static_cast<float>(counted[0]);
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_softmax(const float* x, int64_t rows, int64_t n, float* out, void* stream) {
  return launch(Kernel::SOFTMAX, softmax, dim3(static_cast<unsigned>(rows)), kRowThreads, 0, stream,
                x, n, out);
}

int blc_logsumexp(const float* x, int64_t rows, int64_t n, float* out, void* stream) {
  return launch(Kernel::LOGSUMEXP, logsumexp, dim3(static_cast<unsigned>(rows)), kRowThreads, 0,
                stream, x, n, out);
}

int blc_log_softmax(const float* x, int64_t rows, int64_t n, float* out, void* stream) {
  return launch(Kernel::LOG_SOFTMAX, log_softmax, dim3(static_cast<unsigned>(rows)), kRowThreads, 0,
                stream, x, n, out);
}

int blc_cross_entropy(const void* logits, int dtype, const int64_t* targets, int64_t rows,
                      int64_t n, int64_t ignored, float smoothing, float* losses, int* bad,
                      float* mean, void* stream) {
  const int code = with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch(Kernel::CROSS_ENTROPY, cross_entropy<T>, dim3(static_cast<unsigned>(rows)),
                  kRowThreads, 0, stream, static_cast<const T*>(logits), targets, n, ignored,
                  smoothing, losses, bad);
  });
  if (code != 0 || mean == nullptr) return code;
  return launch(Kernel::MEAN_LOSS, mean_loss, dim3(1), kRowThreads, 0, stream, losses, targets,
                rows, ignored, mean);
}
