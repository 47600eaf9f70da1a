// The part of bitlens._core that computes gradients.
#include "bindings.h"
#include "cpu/backward.h"

namespace bitlens {

void bind_backward(py::module_& m) {
  m.def(
      "scaled",
      [](const Array& x, int dtype, int64_t count, float factor, const Array& out, int out_dtype) {
        const DType from = dtype_of(dtype), to = dtype_of(out_dtype);
        scaled(at(x, from, {count}, "x"), from, count, factor, at(out, to, {count}, "out"), to);
      },
      NoGil());
  m.def(
      "normalize_backward",
      [](const Array& dn, const Array& x, const Array& scale, int64_t rows, int64_t d,
         const Array& dx, const Array& dscale) {
        normalize_backward(at<float>(dn, {rows, d}, "dn"), at<float>(x, {rows, d}, "x"),
                           at<float>(scale, {rows}, "scale"), rows, d,
                           at<float>(dx, {rows, d}, "dx"), at<float>(dscale, {rows}, "dscale"));
      },
      NoGil());
  m.def(
      "rms_scale_backward",
      [](const Array& dscale, const Array& x, const Array& scale, int64_t rows, int64_t d,
         const Array& dx) {
        rms_scale_backward(at<float>(dscale, {rows}, "dscale"), at<float>(x, {rows, d}, "x"),
                           at<float>(scale, {rows}, "scale"), rows, d,
                           at<float>(dx, {rows, d}, "dx"));
      },
      NoGil());
  m.def(
      "rms_norm_backward",
      [](const Array& dy, const Array& x, const Array& weight, int64_t rows, int64_t d, float eps,
         int x_dtype, int dtype, const Array& dx) {
        const DType of_x = dtype_of(x_dtype), of_y = dtype_of(dtype);
        rms_norm_backward(
            {at(dy, of_y, {rows, d}, "dy"), at(x, of_x, {rows, d}, "x"),
             at<float>(weight, {d}, "weight"), d, eps, of_x, of_y, at(dx, of_x, {rows, d}, "dx")},
            rows);
      },
      NoGil());
  m.def(
      "softmax_backward",
      [](const Array& p, const Array& dp, int64_t rows, int64_t n, const Array& ds) {
        softmax_backward(at<float>(p, {rows, n}, "p"), at<float>(dp, {rows, n}, "dp"), rows, n,
                         at<float>(ds, {rows, n}, "ds"));
      },
      NoGil());
  m.def(
      "gated_act_backward",
      [](int kind, const Array& gate, const Array& up, const Array& dpost, int64_t count, int dtype,
         const Array& dgate, const Array& dup) {
        const DType type = dtype_of(dtype);
        gated_act_backward({activation_of(kind), at(gate, type, {count}, "gate"),
                            at(up, type, {count}, "up"), at(dpost, type, {count}, "dpost"), type,
                            at(dgate, type, {count}, "dgate"), at(dup, type, {count}, "dup")},
                           count);
      },
      NoGil());
}

}  // namespace bitlens
