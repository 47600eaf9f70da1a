#include "backward.h"

#include "kernels.h"
#include "row_ranges.h"

namespace bitlens {

void scaled(const void* x, DType dtype, int64_t count, float factor, void* out, DType out_dtype) {
  const BackwardKernels& k = kernels().backward;
  for_elements(count, [&](int64_t begin, int64_t end) {
    k.scaled(at(x, begin, dtype), dtype, end - begin, factor, at(out, begin, out_dtype), out_dtype);
  });
}

void normalize_backward(const float* dn, const float* x, const float* scale, int64_t rows,
                        int64_t d, float* dx, float* dscale) {
  const BackwardKernels& k = kernels().backward;
  for_rows(rows, d, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      dscale[r] = k.normalize(dn + r * d, x + r * d, scale[r], d, dx + r * d);
  });
}

void rms_scale_backward(const float* dscale, const float* x, const float* scale, int64_t rows,
                        int64_t d, float* dx) {
  const BackwardKernels& k = kernels().backward;
  for_rows(rows, d, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      k.rms_scale(dscale[r], x + r * d, scale[r], d, dx + r * d);
  });
}

void rms_norm_backward(const RmsNormBackward& op, int64_t rows) {
  const BackwardKernels& k = kernels().backward;
  for_rows(rows, op.d, [&](int64_t begin, int64_t end) { k.rms_norm(op, begin, end); });
}

void softmax_backward(const float* p, const float* dp, int64_t rows, int64_t n, float* ds) {
  const BackwardKernels& k = kernels().backward;
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) k.softmax(p + r * n, dp + r * n, n, ds + r * n);
  });
}

void gated_act_backward(const GatedActBackward& op, int64_t count) {
  const BackwardKernels& k = kernels().backward;
  for_elements(count, [&](int64_t begin, int64_t end) { k.gated_act(op, begin, end); });
}

}  // namespace bitlens
