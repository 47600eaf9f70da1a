// Row operations, one function a row: norms, residual adds, RoPE, gated activations, softmax.
// Compiled once per instruction set; the orders are those of csrc/spec, stepwise.h included.
#include "../../spec/cross_entropy.h"
#include "../row_kernels.h"
#include "../simd_rows.h"
#include "../simd_softmax.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

// v as it is, or rounded to T where every step is.
template <typename T, bool kStepwise>
f32x16 step(f32x16 v) {
  return kStepwise ? rounded<T>(v) : v;
}

template <typename X, typename Y>
void add_row(const X* x, const Y* y, int64_t count, X* out) {
  for_lanes(count,
            [&](int64_t i, int n) { store_n(out + i, load_n(x + i, n) + load_n(y + i, n), n); });
}

template <typename T>
void normalize_row(const T* x, float scale, int64_t d, float* out) {
  const f32x16 divisor = splat(scale);
  for_lanes(d, [&](int64_t i, int n) { store_n(out + i, load_n(x + i, n) / divisor, n); });
}

template <typename T>
void norm_weight_row(const float* normalized, const float* weight, int64_t d, T* out) {
  for_lanes(d, [&](int64_t i, int n) {
    store_n(out + i, load_n(normalized + i, n) * load_n(weight + i, n), n);
  });
}

// normalize_row and norm_weight_row in one pass.
template <bool kStepwise, typename X, typename T>
void scale_row(const X* x, float scale, const float* weight, int64_t d, T* out) {
  const f32x16 divisor = splat(scale);
  for_lanes(d, [&](int64_t i, int n) {
    const f32x16 normalized = step<T, kStepwise>(load_n(x + i, n) / divisor);
    store_n(out + i, normalized * load_n(weight + i, n), n);
  });
}

template <typename X, typename T, bool kStepwise>
void rms_norm_row(const RmsNorm& op, int64_t row) {
  const int64_t width = op.heads * op.d;
  const X* x = static_cast<const X*>(op.x) + row * op.x_stride;
  T* out = op.out ? static_cast<T*>(op.out) + row * op.out_stride : nullptr;
  if (op.residual) {
    X* sum = static_cast<X*>(op.residual_out) + row * width;
    add_row(x, static_cast<const T*>(op.residual) + row * width, width, sum);
    x = sum;
  }
  for (int64_t head = 0; head < op.heads; ++head, x += op.d) {
    const float mean = row_sum_of_squares(x, op.d) / static_cast<float>(op.d);
    const float scale = __builtin_sqrtf(mean + op.eps);
    if (op.scale_out) op.scale_out[row * op.heads + head] = scale;
    // Before out, which may be x.
    if (op.normalized_out)
      normalize_row(x, scale, op.d, op.normalized_out + row * width + head * op.d);
    if (out) scale_row<kStepwise>(x, scale, op.weight, op.d, out + head * op.d);
  }
}

// x * c + y * s of each lane: a fused step, or both products and the tables rounded.
template <typename T, bool kStepwise>
f32x16 rotated(f32x16 x, f32x16 c, f32x16 y, f32x16 s) {
  if constexpr (kStepwise) return rounded<T>(x * c) + rounded<T>(y * s);
  return fma(x, c, y * s);
}

template <typename T, bool kStepwise>
void rope_row(const Rope& op, int64_t row) {
  const int64_t half = op.d_head / 2;
  const float* cos = op.cos + op.positions[row] * half;
  const float* sin = op.sin + op.positions[row] * half;
  const T* x = static_cast<const T*>(op.x) + row * op.x_stride;
  T* out = static_cast<T*>(op.out) + row * op.out_stride;
  for (int64_t head = 0; head < op.heads; ++head, x += op.d_head, out += op.d_head)
    for_lanes(half, [&](int64_t i, int n) {
      const f32x16 c = step<T, kStepwise>(load_n(cos + i, n));
      const f32x16 s = step<T, kStepwise>(load_n(sin + i, n));
      const f32x16 x1 = load_n(x + i, n), x2 = load_n(x + half + i, n);
      store_n(out + i, rotated<T, kStepwise>(x1, c, negate(x2), s), n);
      store_n(out + half + i, rotated<T, kStepwise>(x2, c, x1, s), n);
    });
}

template <typename T, bool kStepwise>
void gated_act_row(const GatedAct& op, int64_t row) {
  const T* gate = static_cast<const T*>(op.gate) + row * op.gate_stride;
  const T* up = static_cast<const T*>(op.up) + row * op.up_stride;
  T* out = static_cast<T*>(op.out) + row * op.out_stride;
  if (op.kind == Activation::SILU)
    for_lanes(op.m, [&](int64_t i, int n) {
      const f32x16 activated = step<T, kStepwise>(silu(load_n(gate + i, n)));
      store_n(out + i, activated * load_n(up + i, n), n);
    });
  else
    for_lanes(op.m, [&](int64_t i, int n) {
      const f32x16 activated = step<T, kStepwise>(gelu_tanh(load_n(gate + i, n)));
      store_n(out + i, activated * load_n(up + i, n), n);
    });
}

template <typename X, typename T>
void rms_norm_as(const RmsNorm& op, int64_t row) {
  op.stepwise ? rms_norm_row<X, T, true>(op, row) : rms_norm_row<X, T, false>(op, row);
}

template <typename X>
void rms_norm_of(const RmsNorm& op, int64_t row) {
  op.dtype == DType::F32 ? rms_norm_as<X, float>(op, row) : rms_norm_as<X, uint16_t>(op, row);
}

void rms_norm(const RmsNorm& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    op.x_dtype == DType::F32 ? rms_norm_of<float>(op, row) : rms_norm_of<uint16_t>(op, row);
}

void normalize(const void* x, float scale, int64_t d, DType dtype, float* out) {
  if (dtype == DType::F32) return normalize_row(static_cast<const float*>(x), scale, d, out);
  normalize_row(static_cast<const uint16_t*>(x), scale, d, out);
}

void norm_weight(const float* normalized, const float* weight, int64_t d, void* out, DType dtype) {
  if (dtype == DType::F32) return norm_weight_row(normalized, weight, d, static_cast<float*>(out));
  norm_weight_row(normalized, weight, d, static_cast<uint16_t*>(out));
}

template <typename X>
void add_to(const X* x, const void* y, DType y_dtype, int64_t count, void* out) {
  if (y_dtype == DType::F32)
    add_row(x, static_cast<const float*>(y), count, static_cast<X*>(out));
  else
    add_row(x, static_cast<const uint16_t*>(y), count, static_cast<X*>(out));
}

void add(const void* x, DType dtype, const void* y, DType y_dtype, int64_t count, void* out) {
  dtype == DType::F32 ? add_to(static_cast<const float*>(x), y, y_dtype, count, out)
                      : add_to(static_cast<const uint16_t*>(x), y, y_dtype, count, out);
}

template <typename To, typename From>
void cast_as(const void* x, int64_t count, void* out) {
  const From* from = static_cast<const From*>(x);
  To* to = static_cast<To*>(out);
  for_lanes(count, [&](int64_t i, int n) { store_n(to + i, load_n(from + i, n), n); });
}

template <typename To>
void cast_to(const void* x, DType dtype, int64_t count, void* out) {
  dtype == DType::F32 ? cast_as<To, float>(x, count, out) : cast_as<To, uint16_t>(x, count, out);
}

void cast(const void* x, DType dtype, int64_t count, void* out, DType out_dtype) {
  out_dtype == DType::F32 ? cast_to<float>(x, dtype, count, out)
                          : cast_to<uint16_t>(x, dtype, count, out);
}

template <typename T>
void scale_scores_as(const float* x, float scale, int64_t count, void* out) {
  const f32x16 factor = splat(scale);
  for_lanes(count, [&](int64_t i, int n) {
    store_n(static_cast<T*>(out) + i, rounded<T>(load_n(x + i, n)) * factor, n);
  });
}

void scale_scores(const float* x, float scale, int64_t count, DType dtype, void* out) {
  dtype == DType::F32 ? scale_scores_as<float>(x, scale, count, out)
                      : scale_scores_as<uint16_t>(x, scale, count, out);
}

template <typename T>
void rope_as(const Rope& op, int64_t row) {
  op.stepwise ? rope_row<T, true>(op, row) : rope_row<T, false>(op, row);
}

void rope(const Rope& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    op.dtype == DType::F32 ? rope_as<float>(op, row) : rope_as<uint16_t>(op, row);
}

template <typename T>
void gated_act_as(const GatedAct& op, int64_t row) {
  op.stepwise ? gated_act_row<T, true>(op, row) : gated_act_row<T, false>(op, row);
}

void gated_act(const GatedAct& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    op.dtype == DType::F32 ? gated_act_as<float>(op, row) : gated_act_as<uint16_t>(op, row);
}

void softmax(const float* x, int64_t n, float* out) { softmax_row(x, n, 0, out); }

float logsumexp(const float* x, int64_t n) { return spec::logsumexp_of(softmax_terms(x, n)); }

void log_softmax(const float* x, int64_t n, float* out) {
  const spec::SoftmaxTerms terms = softmax_terms(x, n);
  const f32x16 shift = splat(terms.max), log_sum = splat(spec::log_f32(terms.sum));
  for_lanes(n,
            [&](int64_t i, int m) { store_n(out + i, (load_n(x + i, m) - shift) - log_sum, m); });
}

float cross_entropy(const void* x, DType dtype, int64_t n, int64_t target, float smoothing,
                    float* wide) {
  if (dtype != DType::F32) cast_as<float, uint16_t>(x, n, wide);
  const float* logits = dtype == DType::F32 ? static_cast<const float*>(x) : wide;
  const float sum =
      row_reduce(n, [&](int64_t i, int m, f32x16 acc) { return acc + load_n(logits + i, m); });
  return spec::smoothed_loss(logsumexp(logits, n), logits[target], sum, n, smoothing);
}

void exp_all(const float* x, int64_t count, float* out) {
  for_lanes(count, [&](int64_t i, int n) { store_n(out + i, exp(load_n(x + i, n)), n); });
}

void log_all(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = spec::log_f32(x[i]);
}

void tanh_all(const float* x, int64_t count, float* out) {
  for_lanes(count, [&](int64_t i, int n) { store_n(out + i, tanh(load_n(x + i, n)), n); });
}

void soft_cap_all(const float* x, int64_t count, float cap, float* out) {
  const f32x16 caps = splat(cap);
  for_lanes(count,
            [&](int64_t i, int n) { store_n(out + i, soft_cap(load_n(x + i, n), caps), n); });
}

void soft_cap_backward(const float* dy, const float* y, int64_t count, float cap, float* dx) {
  for_lanes(count, [&](int64_t i, int n) {
    const f32x16 t = load_n(y + i, n) / splat(cap);
    store_n(dx + i, load_n(dy + i, n) * fma(zero() - t, t, splat(1.0f)), n);
  });
}

constexpr RowKernels kRowKernels = {
    rms_norm,  normalize,    norm_weight,      add,         cast,          scale_scores, rope,
    gated_act, softmax,      logsumexp,        log_softmax, cross_entropy, exp_all,      log_all,
    tanh_all,  soft_cap_all, soft_cap_backward};

}  // namespace

const RowKernels& row_kernels() { return kRowKernels; }

}  // namespace bitlens::BITLENS_ISA_NS
