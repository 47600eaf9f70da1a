// Operations that look at one element at a time: residual adds, casts, scales, soft caps, gated
// activations.
#include "../spec/activation.h"
#include "../spec/soft_cap.h"
#include "library.h"
#include "rows.h"

namespace bitlens::cuda {
namespace {

template <typename X, typename Y>
__global__ void __launch_bounds__(kElementThreads)
    add(const X* x, const Y* y, int64_t count, X* out) {
  for_elements(count, [&](int64_t i) { store(out + i, load(x + i) + load(y + i)); });
}

template <typename From, typename To>
__global__ void __launch_bounds__(kElementThreads) cast(const From* x, int64_t count, To* out) {
  for_elements(count, [&](int64_t i) { store(out + i, load(x + i)); });
}

template <typename From, typename To>
__global__ void __launch_bounds__(kElementThreads)
    scaled(const From* x, float factor, int64_t count, To* out) {
  for_elements(count, [&](int64_t i) { store(out + i, load(x + i) * factor); });
}

// round(round(x) * scale), csrc/spec/stepwise.h.
template <typename T>
__global__ void __launch_bounds__(kElementThreads)
    scale_scores(const float* x, float scale, int64_t count, T* out) {
  for_elements(count, [&](int64_t i) { store(out + i, rounded(out, x[i]) * scale); });
}

__global__ void __launch_bounds__(kElementThreads)
    soft_cap(const float* x, float cap, int64_t count, float* out) {
  for_elements(count, [&](int64_t i) { out[i] = spec::soft_cap(x[i], cap); });
}

// Rows of m with strides in elements.
template <typename T>
struct Gated {
  const T *gate, *up;
  int64_t m, gate_stride, up_stride, out_stride;
  bool is_gelu, stepwise;
  T* out;
};

template <typename T>
__global__ void __launch_bounds__(kElementThreads) gated_act(Gated<T> op, int64_t count) {
  for_elements(count, [&](int64_t i) {
    const int64_t row = i / op.m, at = i % op.m;
    const float gate = load(op.gate + row * op.gate_stride + at);
    const float up = load(op.up + row * op.up_stride + at);
    float activated = op.is_gelu ? spec::gelu_tanh(gate) : spec::silu(gate);
    if (op.stepwise) activated = rounded(op.out, activated);
    store(op.out + row * op.out_stride + at, activated * up);
  });
}

template <typename T>
int launch_gated(int act, const void* gate, int64_t gate_stride, const void* up, int64_t up_stride,
                 int64_t rows, int64_t m, int stepwise, void* out, int64_t out_stride,
                 void* stream) {
  const Gated<T> op = {static_cast<const T*>(gate),
                       static_cast<const T*>(up),
                       m,
                       gate_stride,
                       up_stride,
                       out_stride,
                       act == 1,
                       stepwise != 0,
                       static_cast<T*>(out)};
  return launch(Kernel::GATED_ACT, gated_act<T>, element_grid(rows * m), kElementThreads, 0, stream,
                op, rows * m);
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_add(const void* x, int dtype, const void* y, int y_dtype, int64_t count, void* out,
            void* stream) {
  return with_dtypes(dtype, y_dtype, [&](auto x_zero, auto y_zero) {
    using X = decltype(x_zero);
    using Y = decltype(y_zero);
    return launch(Kernel::ADD, add<X, Y>, element_grid(count), kElementThreads, 0, stream,
                  static_cast<const X*>(x), static_cast<const Y*>(y), count, static_cast<X*>(out));
  });
}

int blc_cast(const void* x, int dtype, int64_t count, void* out, int out_dtype, void* stream) {
  return with_dtypes(dtype, out_dtype, [&](auto from, auto to) {
    using From = decltype(from);
    using To = decltype(to);
    return launch(Kernel::CAST, cast<From, To>, element_grid(count), kElementThreads, 0, stream,
                  static_cast<const From*>(x), count, static_cast<To*>(out));
  });
}

int blc_scaled(const void* x, int dtype, int64_t count, float factor, void* out, int out_dtype,
               void* stream) {
  return with_dtypes(dtype, out_dtype, [&](auto from, auto to) {
    using From = decltype(from);
    using To = decltype(to);
    return launch(Kernel::SCALED, scaled<From, To>, element_grid(count), kElementThreads, 0, stream,
                  static_cast<const From*>(x), factor, count, static_cast<To*>(out));
  });
}

int blc_scale_scores(const float* x, float scale, int64_t count, void* out, int dtype,
                     void* stream) {
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch(Kernel::SCALE_SCORES, scale_scores<T>, element_grid(count), kElementThreads, 0,
                  stream, x, scale, count, static_cast<T*>(out));
  });
}

int blc_soft_cap(const float* x, int64_t count, float cap, float* out, void* stream) {
  return launch(Kernel::SOFT_CAP, soft_cap, element_grid(count), kElementThreads, 0, stream, x, cap,
                count, out);
}

int blc_gated_act(int act, const void* gate, int64_t gate_stride, const void* up, int64_t up_stride,
                  int64_t rows, int64_t m, int dtype, int stepwise, void* out, int64_t out_stride,
                  void* stream) {
  auto* gated = dtype == kF32 ? launch_gated<float> : launch_gated<uint16_t>;
  return gated(act, gate, gate_stride, up, up_stride, rows, m, stepwise, out, out_stride, stream);
}
