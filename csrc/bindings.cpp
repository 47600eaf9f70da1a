// bitlens._core: kernels on tensors that Python allocates, by the conventions of bindings.h.
#include "bindings.h"

#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "cpu/bf16_products.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/result_pages.h"
#include "cpu/rows.h"
#include "cpu/threads.h"
#include "spec/rope.h"
#include "spec/version.h"

namespace bitlens {
namespace {

// Memory for torch.frombuffer.
template <void* (*Take)(size_t), void (*Return)(void*, size_t) noexcept>
struct Pages {
  explicit Pages(size_t bytes) : bytes(bytes), data(Take(bytes)) {}
  ~Pages() { Return(data, bytes); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  const size_t bytes;
  void* const data;
};

template <typename P>
void bind_pages(py::module_& m, const char* name) {
  py::class_<P>(m, name, py::buffer_protocol()).def(py::init<size_t>()).def_buffer([](P& pages) {
    return py::buffer_info(static_cast<uint8_t*>(pages.data),
                           static_cast<py::ssize_t>(pages.bytes));
  });
}

void bind_machine(py::module_& m) {
  m.attr("numerics_version") = spec::kNumericsVersion;
  m.def("isa", [] { return std::string(kernels().isa); });
  m.def("set_isa", &set_isa);
  m.def("isa_setting", &isa_setting);
  m.def("available_isas", &available_isas);
  m.def(
      "bf16_products",
      [] {
        const Bf16Products& found = bf16_products();
        std::vector<std::tuple<std::string, double, double>> timed;
        for (const auto& set : found.timed) timed.emplace_back(set.isa, set.few, set.many);
        return std::make_tuple(found.few, found.many, timed);
      },
      NoGil());
  m.def("choose_bf16_products", &choose_bf16_products);
  m.def("set_num_threads", &set_num_threads, NoGil());
  m.def("get_num_threads", &num_threads);
  bind_pages<Pages<map_pages, unmap_pages>>(m, "HugePages");
  bind_pages<Pages<take_pages, return_pages>>(m, "ResultPages");
  m.def("kept_page_bytes", &kept_page_bytes);
  m.def("drop_kept_pages", &drop_kept_pages);
}

void bind_linear(py::module_& m) {
  m.def("packed_bytes",
        [](int format, int64_t n, int64_t k) { return packed_bytes(format_of(format), n, k); });
  m.def(
      "pack",
      [](int format, const Array& rows, int64_t n, int64_t k, const Array& panels) {
        const Format kind = format_of(format);
        pack(kind, bytes_at(rows, elements_of({n, row_bytes(kind, k)}), "rows"), n, k,
             bytes_at(panels, packed_bytes(kind, n, k), "panels"));
      },
      NoGil());
  m.def(
      "unpack_rows",
      [](int format, const Array& panels, int64_t n, int64_t k, int64_t row0, int64_t rows,
         const Array& out) {
        if (row0 < 0 || rows < 0 || row0 > n - rows)
          throw std::invalid_argument("unpack_rows: rows that the matrix does not have");
        unpack_rows(matrix_of(panels, format, n, k), row0, rows, at<float>(out, {rows, k}, "out"));
      },
      NoGil());
  m.def(
      "linear",
      [](const Array& x, int dtype, int64_t rows, int64_t x_stride, const Array& panels, int format,
         int64_t n, int64_t k, const Array& bias, const Array& out, int out_dtype,
         int64_t out_stride) {
        const DType type = dtype_of(dtype), out_type = dtype_of(out_dtype);
        const LinearOutput to = {matrix_of(panels, format, n, k), maybe<float>(bias, {n}, "bias"),
                                 rows_at(out, out_type, rows, n, out_stride, "out"), out_type,
                                 out_stride};
        linear(rows_at(x, type, rows, k, x_stride, "x"), type, rows, k, x_stride, &to, 1);
      },
      NoGil());
  m.def(
      "embedding",
      [](const Array& tokens, int64_t count, const Array& panels, int format, int64_t n, int64_t k,
         float scale, const Array& out, int dtype) {
        const auto* ids = at<int64_t>(tokens, {count}, "tokens");
        for (int64_t i = 0; i < count; ++i)
          if (ids[i] < 0 || ids[i] >= n)
            throw std::out_of_range("embedding: token " + std::to_string(ids[i]) + " of " +
                                    std::to_string(n));
        const DType type = dtype_of(dtype);
        embedding(ids, count, matrix_of(panels, format, n, k), scale,
                  at(out, type, {count, k}, "out"), type);
      },
      NoGil());
}

RmsNorm norm_of(bool stepwise, const Array& x, const Array& residual, const Array& weight,
                int64_t rows, int64_t heads, int64_t d, int64_t x_stride, float eps, DType x_type,
                DType type, const Array& out, int64_t out_stride, const Array& residual_out,
                const Array& scale_out, const Array& normalized_out) {
  const int64_t width = elements_of({heads, d});
  if (residual.given && !residual_out.given)
    throw std::invalid_argument("residual_out: a norm of a sum needs room for the sum");
  if (out.given && !weight.given)
    throw std::invalid_argument("weight: None where an array is needed");
  return {rows_at(x, x_type, rows, width, x_stride, "x"),
          x_stride,
          maybe(residual, type, {rows, width}, "residual"),
          maybe<float>(weight, {d}, "weight"),
          heads,
          d,
          eps,
          x_type,
          type,
          out.given ? rows_at(out, type, rows, width, out_stride, "out") : nullptr,
          out_stride,
          maybe(residual_out, x_type, {rows, width}, "residual_out"),
          maybe<float>(scale_out, {rows, heads}, "scale_out"),
          maybe<float>(normalized_out, {rows, width}, "normalized_out"),
          stepwise};
}

void bind_norms(py::module_& m) {
  const auto bind_norm = [&m](const char* name, bool stepwise) {
    m.def(
        name,
        [stepwise](const Array& x, const Array& residual, const Array& weight, int64_t rows,
                   int64_t heads, int64_t d, int64_t x_stride, float eps, int x_dtype, int dtype,
                   const Array& out, int64_t out_stride, const Array& residual_out,
                   const Array& scale_out, const Array& normalized_out) {
          rms_norm(norm_of(stepwise, x, residual, weight, rows, heads, d, x_stride, eps,
                           dtype_of(x_dtype), dtype_of(dtype), out, out_stride, residual_out,
                           scale_out, normalized_out),
                   rows);
        },
        NoGil());
  };
  bind_norm("rms_norm", false);
  bind_norm("stepwise_rms_norm", true);
  m.def(
      "normalize",
      [](const Array& x, const Array& scale, int64_t rows, int64_t d, int dtype, const Array& out) {
        const DType type = dtype_of(dtype);
        normalize(at(x, type, {rows, d}, "x"), at<float>(scale, {rows}, "scale"), rows, d, type,
                  at<float>(out, {rows, d}, "out"));
      },
      NoGil());
  m.def(
      "norm_weight",
      [](const Array& normalized, const Array& weight, int64_t rows, int64_t d, const Array& out,
         int dtype) {
        const DType type = dtype_of(dtype);
        norm_weight(at<float>(normalized, {rows, d}, "normalized"),
                    at<float>(weight, {d}, "weight"), rows, d, at(out, type, {rows, d}, "out"),
                    type);
      },
      NoGil());
}

void bind_rows(py::module_& m) {
  m.def(
      "add",
      [](const Array& x, int dtype, const Array& y, int y_dtype, int64_t count, const Array& out) {
        const DType type = dtype_of(dtype), y_type = dtype_of(y_dtype);
        add(at(x, type, {count}, "x"), type, at(y, y_type, {count}, "y"), y_type, count,
            at(out, type, {count}, "out"));
      },
      NoGil());
  m.def(
      "cast",
      [](const Array& x, int dtype, int64_t count, const Array& out, int out_dtype) {
        const DType from = dtype_of(dtype), to = dtype_of(out_dtype);
        cast(at(x, from, {count}, "x"), from, count, at(out, to, {count}, "out"), to);
      },
      NoGil());
  m.def(
      "scale_scores",
      [](const Array& x, float scale, int64_t count, int dtype, const Array& out) {
        const DType type = dtype_of(dtype);
        scale_scores(at<float>(x, {count}, "x"), scale, count, type, at(out, type, {count}, "out"));
      },
      NoGil());
  const auto bind_gate = [&m](const char* name, bool stepwise) {
    m.def(
        name,
        [stepwise](int kind, const Array& gate, const Array& up, int64_t rows, int64_t width,
                   int64_t gate_stride, int64_t up_stride, int dtype, const Array& out,
                   int64_t out_stride) {
          const DType type = dtype_of(dtype);
          gated_act(
              {activation_of(kind), rows_at(gate, type, rows, width, gate_stride, "gate"),
               rows_at(up, type, rows, width, up_stride, "up"), width, gate_stride, up_stride, type,
               rows_at(out, type, rows, width, out_stride, "out"), out_stride, stepwise},
              rows);
        },
        NoGil());
  };
  bind_gate("gated_act", false);
  bind_gate("stepwise_gated_act", true);
}

void bind_maps(py::module_& m) {
  const auto map_rows = [&m](const char* name, void (*op)(const float*, int64_t, int64_t, float*),
                             bool reduces) {
    m.def(
        name,
        [op, reduces](const Array& x, int64_t rows, int64_t n, const Array& out) {
          op(at<float>(x, {rows, n}, "x"), rows, n, at<float>(out, {rows, reduces ? 1 : n}, "out"));
        },
        NoGil());
  };
  map_rows("softmax", softmax, false);
  map_rows("logsumexp", logsumexp, true);
  map_rows("log_softmax", log_softmax, false);
  m.def(
      "cross_entropy",
      [](const Array& x, int dtype, const Array& targets, int64_t rows, int64_t n, int64_t ignored,
         float smoothing, const Array& losses, const Array& mean) {
        const DType type = dtype_of(dtype);
        cross_entropy({at(x, type, {rows, n}, "x"), at<int64_t>(targets, {rows}, "targets"), n,
                       type, ignored, smoothing, at<float>(losses, {rows}, "losses")},
                      rows, maybe<float>(mean, {1}, "mean"));
      },
      NoGil());
  const auto map_values = [&m](const char* name, void (*op)(const float*, int64_t, float*)) {
    m.def(
        name,
        [op](const Array& x, int64_t count, const Array& out) {
          op(at<float>(x, {count}, "x"), count, at<float>(out, {count}, "out"));
        },
        NoGil());
  };
  map_values("exp", bitlens::exp);
  map_values("log", bitlens::log);
  map_values("tanh", bitlens::tanh);
  m.def(
      "soft_cap",
      [](const Array& x, int64_t count, float cap, const Array& out) {
        soft_cap(at<float>(x, {count}, "x"), count, cap, at<float>(out, {count}, "out"));
      },
      NoGil());
  m.def(
      "soft_cap_backward",
      [](const Array& dy, const Array& y, int64_t count, float cap, const Array& dx) {
        soft_cap_backward(at<float>(dy, {count}, "dy"), at<float>(y, {count}, "y"), count, cap,
                          at<float>(dx, {count}, "dx"));
      },
      NoGil());
}

void bind_rope(py::module_& m) {
  m.def("exp_f64", [](double x) { return spec::exp_f64(x); });
  m.def("log_f64", [](double x) { return spec::log_f64(x); });
  m.def("rope_inv_freq", [](double theta, int d_head, const Array& out) {
    auto* inv_freq = at<double>(out, {d_head / 2}, "out");
    for (int j = 0; j < d_head / 2; ++j) inv_freq[j] = spec::rope_inv_freq(theta, j, d_head);
  });
  m.def(
      "rope_table",
      [](const Array& inv_freq, int64_t half, int64_t position, int64_t count, const Array& cos,
         const Array& sin, double attention_factor) {
        const auto* frequencies = at<double>(inv_freq, {half}, "inv_freq");
        auto* c = at<float>(cos, {count, half}, "cos");
        auto* s = at<float>(sin, {count, half}, "sin");
        parallel_for(count, [&](int64_t i) {
          for (int64_t j = 0; j < half; ++j)
            spec::rope_table_entry(frequencies[j], position + i, c + i * half + j, s + i * half + j,
                                   attention_factor);
        });
      },
      py::arg("inv_freq"), py::arg("half"), py::arg("position"), py::arg("count"), py::arg("cos"),
      py::arg("sin"), py::arg("attention_factor") = 1.0, NoGil());
  const auto bind_rotation = [&m](const char* name, bool stepwise) {
    m.def(
        name,
        [stepwise](const Array& x, int dtype, int64_t rows, int64_t heads, int64_t d_head,
                   int64_t x_stride, const Array& positions, const Array& cos, const Array& sin,
                   int64_t n_positions, const Array& out, int64_t out_stride) {
          const DType type = dtype_of(dtype);
          const int64_t width = elements_of({heads, d_head});
          rope({rows_at(x, type, rows, width, x_stride, "x"), type, heads, d_head, x_stride,
                at<int64_t>(positions, {rows}, "positions"),
                at<float>(cos, {n_positions, d_head / 2}, "cos"),
                at<float>(sin, {n_positions, d_head / 2}, "sin"),
                rows_at(out, type, rows, width, out_stride, "out"), out_stride, stepwise},
               rows, n_positions);
        },
        NoGil());
  };
  bind_rotation("rope", false);
  bind_rotation("stepwise_rope", true);
}

}  // namespace
}  // namespace bitlens

PYBIND11_MODULE(_core, m) {
  using namespace bitlens;
  kernels();  // an impossible BITLENS_ISA fails here, at import
  bind_machine(m);
  bind_linear(m);
  bind_norms(m);
  bind_rows(m);
  bind_maps(m);
  bind_rope(m);
  bind_attention(m);
  bind_blocks(m);
  bind_backward(m);
  bind_dictionary(m);
  bind_probes(m);
  bind_sampling(m);
  bind_training(m);
}
