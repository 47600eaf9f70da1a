// Operations on rows of activations. Void pointers hold values of the dtype named beside them;
// strides are in elements. Every kernel may write over its first input.
#pragma once

#include "types.h"

namespace bitlens {

struct RmsNorm {
  const void* x;  // row r, head j is x[r * x_stride + j * d ...]
  int64_t x_stride;
  const void* residual;  // [rows, heads * d] or null; x = round(x + residual) is what is normalized
  const float* weight;   // [d]
  int64_t heads, d;
  float eps;
  DType x_dtype;  // of x and residual_out
  DType dtype;    // of residual and out
  // Results; a null pointer is one nobody asked for.
  void* out;  // laid out as x, with its own stride
  int64_t out_stride;
  void* residual_out;     // [rows, heads * d], required with a residual
  float* scale_out;       // [rows, heads]
  float* normalized_out;  // [rows, heads, d], not rounded
  bool stepwise = false;  // csrc/spec/stepwise.h
};

struct Rope {
  const void* x;  // row r, head j is x[r * x_stride + j * d_head ...]
  DType dtype;
  int64_t heads, d_head, x_stride;
  const int64_t* positions;  // [rows]
  const float *cos, *sin;    // [n_positions, d_head / 2]
  void* out;
  int64_t out_stride;
  bool stepwise = false;
};

enum class Activation : int { SILU = 0, GELU_TANH = 1 };

struct GatedAct {
  Activation kind;
  const void *gate, *up;
  int64_t m, gate_stride, up_stride;
  DType dtype;
  void* out;
  int64_t out_stride;
  bool stepwise = false;
};

struct CrossEntropy {
  const void* x;           // [rows, n]
  const int64_t* targets;  // [rows]: a class, or `ignored`
  int64_t n;
  DType dtype;
  int64_t ignored;
  float smoothing;
  float* losses;  // [rows]
};

struct RowKernels {
  void (*rms_norm)(const RmsNorm& op, int64_t begin, int64_t end);  // rows [begin, end)
  void (*normalize)(const void* x, float scale, int64_t d, DType dtype, float* out);
  void (*norm_weight)(const float* normalized, const float* weight, int64_t d, void* out,
                      DType dtype);
  // out, of x's dtype, = round(x + y).
  void (*add)(const void* x, DType dtype, const void* y, DType y_dtype, int64_t count, void* out);
  void (*cast)(const void* x, DType dtype, int64_t count, void* out, DType out_dtype);
  void (*scale_scores)(const float* x, float scale, int64_t count, DType dtype, void* out);
  void (*rope)(const Rope& op, int64_t begin, int64_t end);
  void (*gated_act)(const GatedAct& op, int64_t begin, int64_t end);
  void (*softmax)(const float* x, int64_t n, float* out);
  float (*logsumexp)(const float* x, int64_t n);
  void (*log_softmax)(const float* x, int64_t n, float* out);
  // csrc/spec/cross_entropy.h of a row; `wide` takes n floats, for bf16 logits.
  float (*cross_entropy)(const void* x, DType dtype, int64_t n, int64_t target, float smoothing,
                         float* wide);
  void (*exp)(const float* x, int64_t count, float* out);
  void (*log)(const float* x, int64_t count, float* out);
  void (*tanh)(const float* x, int64_t count, float* out);
  void (*soft_cap)(const float* x, int64_t count, float cap, float* out);
  void (*soft_cap_backward)(const float* dy, const float* y, int64_t count, float cap, float* dx);
};

namespace generic {
const RowKernels& row_kernels();
}
namespace avx2 {
const RowKernels& row_kernels();
}
namespace avx512 {
const RowKernels& row_kernels();
}

}  // namespace bitlens
