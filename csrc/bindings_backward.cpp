// The part of bitlens._core that computes gradients.
#include "bindings.h"
#include "cpu/backward.h"

namespace bitlens {

void bind_backward(py::module_& m) {
  m.def(
      "scaled",
      [](Address x, int dtype, int64_t count, float factor, Address out, int out_dtype) {
        scaled(at<void>(x), dtype_of(dtype), count, factor, at<void>(out), dtype_of(out_dtype));
      },
      NoGil());
  m.def(
      "normalize_backward",
      [](Address dn, Address x, Address scale, int64_t rows, int64_t d, Address dx,
         Address dscale) {
        normalize_backward(at<float>(dn), at<float>(x), at<float>(scale), rows, d, at<float>(dx),
                           at<float>(dscale));
      },
      NoGil());
  m.def(
      "rms_scale_backward",
      [](Address dscale, Address x, Address scale, int64_t rows, int64_t d, Address dx) {
        rms_scale_backward(at<float>(dscale), at<float>(x), at<float>(scale), rows, d,
                           at<float>(dx));
      },
      NoGil());
  m.def(
      "rms_norm_backward",
      [](Address dy, Address x, Address weight, int64_t rows, int64_t d, float eps, int x_dtype,
         int dtype, Address dx) {
        rms_norm_backward({at<void>(dy), at<void>(x), at<float>(weight), d, eps, dtype_of(x_dtype),
                           dtype_of(dtype), at<void>(dx)},
                          rows);
      },
      NoGil());
  m.def(
      "softmax_backward",
      [](Address p, Address dp, int64_t rows, int64_t n, Address ds) {
        softmax_backward(at<float>(p), at<float>(dp), rows, n, at<float>(ds));
      },
      NoGil());
  m.def(
      "soft_cap_backward",
      [](Address dy, Address y, int64_t count, float cap, Address dx) {
        soft_cap_backward(at<float>(dy), at<float>(y), count, cap, at<float>(dx));
      },
      NoGil());
  m.def(
      "gated_act_backward",
      [](int kind, Address gate, Address up, Address dpost, int64_t count, int dtype, Address dgate,
         Address dup) {
        gated_act_backward({activation_of(kind), at<void>(gate), at<void>(up), at<void>(dpost),
                            dtype_of(dtype), at<void>(dgate), at<void>(dup)},
                           count);
      },
      NoGil());
}

}  // namespace bitlens
