#pragma once

#include "backward_kernels.h"

namespace bitlens {

// Gradients of operations on many rows, split over threads; csrc/spec/backward.h is their meaning.

// out = round(x * factor).
void scaled(const void* x, DType dtype, int64_t count, float factor, void* out, DType out_dtype);

// Of normalize: dn, x, dx [rows, d], scale, dscale [rows].
void normalize_backward(const float* dn, const float* x, const float* scale, int64_t rows,
                        int64_t d, float* dx, float* dscale);

// Of the scale of an RMS norm.
void rms_scale_backward(const float* dscale, const float* x, const float* scale, int64_t rows,
                        int64_t d, float* dx);

void rms_norm_backward(const RmsNormBackward& op, int64_t rows);

// p, dp, ds [rows, n]; dp is finite where p is 0.
void softmax_backward(const float* p, const float* dp, int64_t rows, int64_t n, float* ds);

void gated_act_backward(const GatedActBackward& op, int64_t count);

}  // namespace bitlens
