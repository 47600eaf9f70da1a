#pragma once

#include "row_kernels.h"

namespace bitlens {

// Operations on many rows, split over threads. Strides are in elements; a null result is not
// written.

void rms_norm(const RmsNorm& op, int64_t rows);

// out [rows, d] = x [rows, d] / scale[row].
void normalize(const void* x, const float* scale, int64_t rows, int64_t d, DType dtype, float* out);

// out [rows, d] = round(normalized * weight).
void norm_weight(const float* normalized, const float* weight, int64_t rows, int64_t d, void* out,
                 DType dtype);

// out, of x's dtype, = round(x + y).
void add(const void* x, DType dtype, const void* y, DType y_dtype, int64_t count, void* out);

// Widened exactly or rounded to nearest even. Only over x itself if the dtypes are equal.
void cast(const void* x, DType dtype, int64_t count, void* out, DType out_dtype);

// out = round(round(x) * scale), both times to dtype (csrc/spec/stepwise.h).
void scale_scores(const float* x, float scale, int64_t count, DType dtype, void* out);

// Throws std::out_of_range if a position has no row in the tables.
void rope(const Rope& op, int64_t rows, int64_t n_positions);

void gated_act(const GatedAct& op, int64_t rows);

// x, out [rows, n]. A row of -inf becomes zeros (logsumexp: -inf).
void softmax(const float* x, int64_t rows, int64_t n, float* out);
void logsumexp(const float* x, int64_t rows, int64_t n, float* out);
void log_softmax(const float* x, int64_t rows, int64_t n, float* out);

// Losses, and their mean over rows that are not ignored unless `mean` is null. Throws
// std::out_of_range for a target that is neither a class nor ignored, std::invalid_argument for a
// mean of no row.
void cross_entropy(const CrossEntropy& op, int64_t rows, float* mean);

void exp(const float* x, int64_t count, float* out);
void log(const float* x, int64_t count, float* out);
void tanh(const float* x, int64_t count, float* out);

// cap * tanh(x / cap), for a positive cap.
void soft_cap(const float* x, int64_t count, float cap, float* out);

// Its gradient, from y, what it gave.
void soft_cap_backward(const float* dy, const float* y, int64_t count, float cap, float* dx);

}  // namespace bitlens
