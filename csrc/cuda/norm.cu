// RMS norm of rows, or of heads of rows, fused with the residual add before it:
// csrc/spec/rms_norm.h and, step by step, csrc/spec/stepwise.h.
#include "../spec/rms_norm.h"
#include "../spec/stepwise.h"
#include "library.h"
#include "rows.h"

namespace bitlens::cuda {
namespace {

// Strides are in elements; what is null is not read or written.
struct RmsNorm {
  const void* x;
  int64_t x_stride;
  const void* residual;
  const float* weight;
  int64_t heads, d;
  float eps;
  bool stepwise;
  void* out;
  int64_t out_stride;
  void* residual_out;
  float *scale_out, *normalized_out;
};

// x + residual of one head's elements, as x is stored; x itself where there is no residual. Each
// thread reads again what it wrote itself.
template <typename X, typename T>
__device__ const X* add_residual(const RmsNorm& op, int64_t row, int64_t head) {
  const X* x = static_cast<const X*>(op.x) + row * op.x_stride + head * op.d;
  if (op.residual == nullptr) return x;
  const int64_t at = (row * op.heads + head) * op.d;
  const T* residual = static_cast<const T*>(op.residual) + at;
  X* sum = static_cast<X*>(op.residual_out) + at;
  for (int64_t i = threadIdx.x; i < op.d; i += kRowThreads)
    store(sum + i, load(x + i) + load(residual + i));
  __syncthreads();
  return sum;
}

// A thread block a head of a row.
template <typename X, typename T>
__global__ void __launch_bounds__(kRowThreads) rms_norm(RmsNorm op) {
  BL_SHARED(float, sums, kGroups);
  const int64_t row = blockIdx.x / op.heads, head = blockIdx.x % op.heads;
  const X* x = add_residual<X, T>(op, row, head);
  const float squares = row_reduce(0, op.d, sums, [&](int64_t i, float acc) {
    const float v = load(x + i);
    return spec::fma32(v, v, acc);
  });
  const float scale = sqrtf(squares / static_cast<float>(op.d) + op.eps);
  const int64_t at = (row * op.heads + head) * op.d;
  if (op.scale_out != nullptr && threadIdx.x == 0) op.scale_out[row * op.heads + head] = scale;
  T* out =
      op.out == nullptr ? nullptr : static_cast<T*>(op.out) + row * op.out_stride + head * op.d;
  for (int64_t i = threadIdx.x; i < op.d; i += kRowThreads) {
    const float normalized = spec::normalize(load(x + i), scale);
    if (op.normalized_out != nullptr) op.normalized_out[at + i] = normalized;
    if (out != nullptr)
      store(out + i, (op.stepwise ? rounded(out, normalized) : normalized) * op.weight[i]);
  }
}

template <typename X>
__global__ void __launch_bounds__(kElementThreads)
    normalize(const X* x, const float* scale, int64_t d, int64_t count, float* out) {
  for_elements(count, [&](int64_t i) { out[i] = spec::normalize(load(x + i), scale[i / d]); });
}

template <typename T>
__global__ void __launch_bounds__(kElementThreads)
    norm_weight(const float* x, const float* weight, int64_t d, int64_t count, T* out) {
  for_elements(count, [&](int64_t i) { store(out + i, x[i] * weight[i % d]); });
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_rms_norm(const void* x, int64_t x_stride, int x_dtype, const void* residual,
                 const float* weight, int64_t rows, int64_t heads, int64_t d, float eps,
                 int stepwise, void* out, int64_t out_stride, int out_dtype, void* residual_out,
                 float* scale_out, float* normalized_out, void* stream) {
  const RmsNorm op = {
      x,   x_stride,   residual,     weight,    heads,         d, eps, stepwise != 0,
      out, out_stride, residual_out, scale_out, normalized_out};
  return with_dtypes(x_dtype, out_dtype, [&](auto x_zero, auto out_zero) {
    return launch(Kernel::RMS_NORM, rms_norm<decltype(x_zero), decltype(out_zero)>,
                  dim3(static_cast<unsigned>(rows * heads)), kRowThreads, 0, stream, op);
  });
}

int blc_normalize(const void* x, int dtype, const float* scale, int64_t rows, int64_t d, float* out,
                  void* stream) {
  return with_dtype(dtype, [&](auto zero) {
    using X = decltype(zero);
    return launch(Kernel::NORMALIZE, normalize<X>, element_grid(rows * d), kElementThreads, 0,
                  stream, static_cast<const X*>(x), scale, d, rows * d, out);
  });
}

int blc_norm_weight(const float* normalized, const float* weight, int64_t rows, int64_t d,
                    void* out, int dtype, void* stream) {
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch(Kernel::NORM_WEIGHT, norm_weight<T>, element_grid(rows * d), kElementThreads, 0,
                  stream, normalized, weight, d, rows * d, static_cast<T*>(out));
  });
}
