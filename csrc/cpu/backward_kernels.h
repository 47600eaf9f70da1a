// Gradients of row operations at their inputs: csrc/spec/backward.h. Void pointers hold values of
// `dtype` unless said otherwise. Rows are dense.
#pragma once

#include "row_kernels.h"

namespace bitlens {

struct RmsNormBackward {
  const void *dy, *x;   // [rows, d]
  const float* weight;  // [d]
  int64_t d;
  float eps;
  DType x_dtype;  // of x and dx
  DType dtype;    // of dy
  void* dx;
};

struct GatedActBackward {
  Activation kind;
  const void *gate, *up, *dpost;
  DType dtype;
  void *dgate, *dup;
};

struct BackwardKernels {
  void (*scaled)(const void* x, DType dtype, int64_t count, float factor, void* out,
                 DType out_dtype);
  // Returns dscale.
  float (*normalize)(const float* dn, const float* x, float scale, int64_t d, float* dx);
  void (*rms_scale)(float dscale, const float* x, float scale, int64_t d, float* dx);
  void (*rms_norm)(const RmsNormBackward& op, int64_t begin, int64_t end);  // rows [begin, end)
  void (*softmax)(const float* p, const float* dp, int64_t n, float* ds);
  void (*gated_act)(const GatedActBackward& op, int64_t begin, int64_t end);  // elements
};

namespace generic {
const BackwardKernels& backward_kernels();
}
namespace avx2 {
const BackwardKernels& backward_kernels();
}
namespace avx512 {
const BackwardKernels& backward_kernels();
}

}  // namespace bitlens
