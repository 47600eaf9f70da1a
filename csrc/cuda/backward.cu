// Derivatives of operations on rows and on elements: csrc/spec/backward.h and csrc/spec/soft_cap.h.
// A thread block a row, or a thread an element.
#include "../spec/backward.h"
#include "../spec/soft_cap.h"
#include "library.h"
#include "rows.h"

namespace bitlens::cuda {
namespace {

__global__ void __launch_bounds__(kRowThreads)
    normalize_backward(const float* dn, const float* x, const float* scales, int64_t d, float* dx,
                       float* dscale) {
  BL_SHARED(float, sums, kGroups);
  const int64_t at = blockIdx.x * d;
  const float scale = scales[blockIdx.x];
  const float dot = row_reduce(0, d, sums, [&](int64_t i, float acc) {
    return spec::fma32(dn[at + i], spec::normalize(x[at + i], scale), acc);
  });
  for (int64_t i = threadIdx.x; i < d; i += kRowThreads) dx[at + i] = dn[at + i] / scale;
  if (threadIdx.x == 0) dscale[blockIdx.x] = (0.0f - dot) / scale;
}

__global__ void __launch_bounds__(kElementThreads)
    rms_scale_backward(const float* dscale, const float* x, const float* scale, int64_t d,
                       int64_t count, float* dx) {
  for_elements(count, [&](int64_t i) {
    const float c = dscale[i / d] / static_cast<float>(d);
    dx[i] = c * spec::normalize(x[i], scale[i / d]);
  });
}

template <typename X, typename T>
__global__ void __launch_bounds__(kRowThreads)
    rms_norm_backward(const T* dy, const X* x, const float* weight, int64_t d, float eps, X* dx) {
  BL_SHARED(float, sums, kGroups);
  const int64_t at = blockIdx.x * d;
  const float squares = row_reduce(0, d, sums, [&](int64_t i, float acc) {
    const float v = load(x + at + i);
    return spec::fma32(v, v, acc);
  });
  const float scale = sqrtf(squares / static_cast<float>(d) + eps);
  const auto dn = [&](int64_t i) { return load(dy + at + i) * weight[i]; };
  const auto normalized = [&](int64_t i) { return spec::normalize(load(x + at + i), scale); };
  const float dot = row_reduce(
      0, d, sums, [&](int64_t i, float acc) { return spec::fma32(dn(i), normalized(i), acc); });
  const float c = (0.0f - dot) / scale / static_cast<float>(d);
  for (int64_t i = threadIdx.x; i < d; i += kRowThreads)
    store(dx + at + i, dn(i) / scale + c * normalized(i));
}

__global__ void __launch_bounds__(kRowThreads)
    softmax_backward(const float* p, const float* dp, int64_t n, float* ds) {
  BL_SHARED(float, sums, kGroups);
  const int64_t at = blockIdx.x * n;
  const float mean = row_reduce(
      0, n, sums, [&](int64_t i, float acc) { return spec::fma32(p[at + i], dp[at + i], acc); });
  for (int64_t i = threadIdx.x; i < n; i += kRowThreads)
    ds[at + i] = p[at + i] * (dp[at + i] - mean);
}

__global__ void __launch_bounds__(kElementThreads)
    soft_cap_backward(const float* dy, const float* y, float cap, int64_t count, float* dx) {
  for_elements(count, [&](int64_t i) { dx[i] = spec::soft_cap_backward(dy[i], y[i], cap); });
}

template <typename T>
__global__ void __launch_bounds__(kElementThreads)
    gated_act_backward(bool is_gelu, const T* gate, const T* up, const T* dpost, int64_t count,
                       T* dgate, T* dup) {
  for_elements(count, [&](int64_t i) {
    const float g = load(gate + i), dy = load(dpost + i);
    const float slope = is_gelu ? spec::gelu_tanh_slope(g) : spec::silu_slope(g);
    const float activated = is_gelu ? spec::gelu_tanh(g) : spec::silu(g);
    store(dgate + i, (dy * load(up + i)) * slope);
    store(dup + i, dy * activated);
  });
}

unsigned blocks_of(int64_t rows) { return static_cast<unsigned>(rows); }

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_normalize_backward(const float* dn, const float* x, const float* scale, int64_t rows,
                           int64_t d, float* dx, float* dscale, void* stream) {
  return launch(Kernel::NORMALIZE_BACKWARD, normalize_backward, dim3(blocks_of(rows)), kRowThreads,
                0, stream, dn, x, scale, d, dx, dscale);
}

int blc_rms_scale_backward(const float* dscale, const float* x, const float* scale, int64_t rows,
                           int64_t d, float* dx, void* stream) {
  return launch(Kernel::RMS_SCALE_BACKWARD, rms_scale_backward, element_grid(rows * d),
                kElementThreads, 0, stream, dscale, x, scale, d, rows * d, dx);
}

int blc_rms_norm_backward(const void* dy, int dtype, const void* x, int x_dtype,
                          const float* weight, int64_t rows, int64_t d, float eps, void* dx,
                          void* stream) {
  return with_dtypes(x_dtype, dtype, [&](auto x_zero, auto zero) {
    using X = decltype(x_zero);
    using T = decltype(zero);
    return launch(Kernel::RMS_NORM_BACKWARD, rms_norm_backward<X, T>, dim3(blocks_of(rows)),
                  kRowThreads, 0, stream, static_cast<const T*>(dy), static_cast<const X*>(x),
                  weight, d, eps, static_cast<X*>(dx));
  });
}

int blc_softmax_backward(const float* p, const float* dp, int64_t rows, int64_t n, float* ds,
                         void* stream) {
  return launch(Kernel::SOFTMAX_BACKWARD, softmax_backward, dim3(blocks_of(rows)), kRowThreads, 0,
                stream, p, dp, n, ds);
}

int blc_soft_cap_backward(const float* dy, const float* y, int64_t count, float cap, float* dx,
                          void* stream) {
  return launch(Kernel::SOFT_CAP_BACKWARD, soft_cap_backward, element_grid(count), kElementThreads,
                0, stream, dy, y, cap, count, dx);
}

int blc_gated_act_backward(int act, const void* gate, const void* up, const void* dpost,
                           int64_t count, int dtype, void* dgate, void* dup, void* stream) {
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch(Kernel::GATED_ACT_BACKWARD, gated_act_backward<T>, element_grid(count),
                  kElementThreads, 0, stream, act == 1, static_cast<const T*>(gate),
                  static_cast<const T*>(up), static_cast<const T*>(dpost), count,
                  static_cast<T*>(dgate), static_cast<T*>(dup));
  });
}
