// Gradients of row operations. Compiled once per instruction set; csrc/spec/backward.h on 16 lanes.
#include "../../spec/backward.h"

#include "../backward_kernels.h"
#include "../simd_math.h"
#include "../simd_rows.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

template <typename T, typename U>
void scaled_as(const void* x, int64_t count, float factor, void* out) {
  const T* from = static_cast<const T*>(x);
  U* to = static_cast<U*>(out);
  for_lanes(count,
            [&](int64_t i, int n) { store_n(to + i, load_n(from + i, n) * splat(factor), n); });
}

void scaled(const void* x, DType dtype, int64_t count, float factor, void* out, DType out_dtype) {
  const bool wide = dtype == DType::F32;
  if (out_dtype == DType::F32)
    return (wide ? scaled_as<float, float> : scaled_as<uint16_t, float>)(x, count, factor, out);
  (wide ? scaled_as<float, uint16_t> : scaled_as<uint16_t, uint16_t>)(x, count, factor, out);
}

float normalize(const float* dn, const float* x, float scale, int64_t d, float* dx) {
  const f32x16 divisor = splat(scale);
  const float dot = row_reduce(d, [&](int64_t i, int n, f32x16 sum) {
    const f32x16 gradient = load_n(dn + i, n);
    store_n(dx + i, gradient / divisor, n);
    return fma(gradient, load_n(x + i, n) / divisor, sum);
  });
  return (0.0f - dot) / scale;
}

void rms_scale(float dscale, const float* x, float scale, int64_t d, float* dx) {
  const f32x16 divisor = splat(scale), c = splat(dscale / static_cast<float>(d));
  for_lanes(d, [&](int64_t i, int n) { store_n(dx + i, c * (load_n(x + i, n) / divisor), n); });
}

template <typename X, typename T>
void rms_norm_row(const RmsNormBackward& op, int64_t row) {
  const T* dy = static_cast<const T*>(op.dy) + row * op.d;
  const X* x = static_cast<const X*>(op.x) + row * op.d;
  X* dx = static_cast<X*>(op.dx) + row * op.d;
  const float mean = row_sum_of_squares(x, op.d) / static_cast<float>(op.d);
  const float scale = __builtin_sqrtf(mean + op.eps);
  const f32x16 divisor = splat(scale);
  const float dot = row_reduce(op.d, [&](int64_t i, int n, f32x16 sum) {
    const f32x16 dn = load_n(dy + i, n) * load_n(op.weight + i, n);
    return fma(dn, load_n(x + i, n) / divisor, sum);
  });
  const f32x16 c = splat(((0.0f - dot) / scale) / static_cast<float>(op.d));
  for_lanes(op.d, [&](int64_t i, int n) {
    const f32x16 dn = load_n(dy + i, n) * load_n(op.weight + i, n);
    store_n(dx + i, dn / divisor + c * (load_n(x + i, n) / divisor), n);
  });
}

template <typename X>
void rms_norm_of(const RmsNormBackward& op, int64_t row) {
  op.dtype == DType::F32 ? rms_norm_row<X, float>(op, row) : rms_norm_row<X, uint16_t>(op, row);
}

void rms_norm(const RmsNormBackward& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    op.x_dtype == DType::F32 ? rms_norm_of<float>(op, row) : rms_norm_of<uint16_t>(op, row);
}

void softmax(const float* p, const float* dp, int64_t n, float* ds) {
  const f32x16 mean = splat(row_reduce(n, [&](int64_t i, int m, f32x16 sum) {
    return fma(load_n(p + i, m), load_n(dp + i, m), sum);
  }));
  for_lanes(n, [&](int64_t i, int m) {
    store_n(ds + i, load_n(p + i, m) * (load_n(dp + i, m) - mean), m);
  });
}

inline f32x16 within(f32x16 x, float reach) { return max(splat(-reach), min(splat(reach), x)); }

inline f32x16 slope_of(f32x16 t, f32x16 z, f32x16 dz) {
  const f32x16 one = splat(1.0f);
  const f32x16 e = exp(z);
  const f32x16 s = one / (one + e);
  return s * fma(t * (e * s), zero() - dz, one);
}

inline f32x16 silu_slope(f32x16 g) {
  const f32x16 t = within(g, spec::kSiluReach);
  return slope_of(t, zero() - t, splat(-1.0f));
}

inline f32x16 gelu_tanh_slope(f32x16 g) {
  const f32x16 t = within(g, spec::kGeluReach), q = t * t, one = splat(1.0f);
  const f32x16 z = splat(spec::kGeluScale) * (t * fma(splat(spec::kGeluCubic), q, one));
  return slope_of(t, z, splat(spec::kGeluScale) * fma(splat(spec::kGeluCubic3), q, one));
}

template <typename T>
void gated_act_as(const GatedActBackward& op, int64_t begin, int64_t end) {
  const T* gate = static_cast<const T*>(op.gate) + begin;
  const T* up = static_cast<const T*>(op.up) + begin;
  const T* dpost = static_cast<const T*>(op.dpost) + begin;
  T* dgate = static_cast<T*>(op.dgate) + begin;
  T* dup = static_cast<T*>(op.dup) + begin;
  const bool is_silu = op.kind == Activation::SILU;
  for_lanes(end - begin, [&](int64_t i, int n) {
    const f32x16 g = load_n(gate + i, n), d = load_n(dpost + i, n);
    const f32x16 slope = is_silu ? silu_slope(g) : gelu_tanh_slope(g);
    const f32x16 act = is_silu ? silu(g) : gelu_tanh(g);
    store_n(dgate + i, (d * load_n(up + i, n)) * slope, n);
    store_n(dup + i, d * act, n);
  });
}

void gated_act(const GatedActBackward& op, int64_t begin, int64_t end) {
  op.dtype == DType::F32 ? gated_act_as<float>(op, begin, end)
                         : gated_act_as<uint16_t>(op, begin, end);
}

constexpr BackwardKernels kBackwardKernels = {scaled,   normalize, rms_scale,
                                              rms_norm, softmax,   gated_act};

}  // namespace

const BackwardKernels& backward_kernels() { return kBackwardKernels; }

}  // namespace bitlens::BITLENS_ISA_NS
