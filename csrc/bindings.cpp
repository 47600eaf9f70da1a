// bitlens._core: kernels on raw addresses, by the conventions of bindings.h. The Python side
// validates and allocates.
#include "bindings.h"

#include <pybind11/stl.h>

#include <cstring>

#include "cpu/attention.h"
#include "cpu/block.h"
#include "cpu/dispatch.h"
#include "cpu/float_environment.h"
#include "cpu/kernels.h"
#include "cpu/kv_pages.h"
#include "cpu/linear.h"
#include "cpu/result_pages.h"
#include "cpu/rows.h"
#include "cpu/threads.h"
#include "spec/rope.h"
#include "spec/version.h"

namespace bitlens {
namespace {

Format format_of(int code) {
  if (code < 0 || code > 5) throw std::invalid_argument("weight format code must be 0..5");
  return static_cast<Format>(code);
}

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
  m.def("available_isas", &available_isas);
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
      [](int format, Address rows, int64_t n, int64_t k, Address panels) {
        pack(format_of(format), at<uint8_t>(rows), n, k, at<uint8_t>(panels));
      },
      NoGil());
  m.def(
      "unpack_rows",
      [](int format, Address panels, int64_t n, int64_t k, int64_t row0, int64_t rows,
         Address out) {
        unpack_rows({at<uint8_t>(panels), format_of(format), n, k}, row0, rows, at<float>(out));
      },
      NoGil());
  m.def(
      "linear",
      [](Address x, int dtype, int64_t rows, int64_t x_stride, Address panels, int format,
         int64_t n, int64_t k, Address bias, Address out, int out_dtype, int64_t out_stride) {
        const LinearOutput to = {{at<uint8_t>(panels), format_of(format), n, k},
                                 at<float>(bias),
                                 at<void>(out),
                                 dtype_of(out_dtype),
                                 out_stride};
        linear(at<void>(x), dtype_of(dtype), rows, k, x_stride, &to, 1);
      },
      NoGil());
  m.def(
      "embedding",
      [](Address tokens, int64_t count, Address panels, int format, int64_t n, int64_t k,
         float scale, Address out, int dtype) {
        embedding(at<int64_t>(tokens), count, {at<uint8_t>(panels), format_of(format), n, k}, scale,
                  at<void>(out), dtype_of(dtype));
      },
      NoGil());
}

void bind_rows(py::module_& m) {
  const auto bind_norm = [&m](const char* name, bool stepwise) {
    m.def(
        name,
        [stepwise](Address x, Address residual, Address weight, int64_t rows, int64_t heads,
                   int64_t d, int64_t x_stride, float eps, int x_dtype, int dtype, Address out,
                   int64_t out_stride, Address residual_out, Address scale_out,
                   Address normalized_out) {
          rms_norm(
              {at<void>(x), x_stride, at<void>(residual), at<float>(weight), heads, d, eps,
               dtype_of(x_dtype), dtype_of(dtype), at<void>(out), out_stride,
               at<void>(residual_out), at<float>(scale_out), at<float>(normalized_out), stepwise},
              rows);
        },
        NoGil());
  };
  bind_norm("rms_norm", false);
  bind_norm("stepwise_rms_norm", true);
  m.def(
      "normalize",
      [](Address x, Address scale, int64_t rows, int64_t d, int dtype, Address out) {
        normalize(at<void>(x), at<float>(scale), rows, d, dtype_of(dtype), at<float>(out));
      },
      NoGil());
  m.def(
      "norm_weight",
      [](Address normalized, Address weight, int64_t rows, int64_t d, Address out, int dtype) {
        norm_weight(at<float>(normalized), at<float>(weight), rows, d, at<void>(out),
                    dtype_of(dtype));
      },
      NoGil());
  m.def(
      "add",
      [](Address x, int dtype, Address y, int y_dtype, int64_t count, Address out) {
        add(at<void>(x), dtype_of(dtype), at<void>(y), dtype_of(y_dtype), count, at<void>(out));
      },
      NoGil());
  m.def(
      "cast",
      [](Address x, int dtype, int64_t count, Address out, int out_dtype) {
        cast(at<void>(x), dtype_of(dtype), count, at<void>(out), dtype_of(out_dtype));
      },
      NoGil());
  m.def(
      "scale_scores",
      [](Address x, float scale, int64_t count, int dtype, Address out) {
        scale_scores(at<float>(x), scale, count, dtype_of(dtype), at<void>(out));
      },
      NoGil());
  const auto bind_gate = [&m](const char* name, bool stepwise) {
    m.def(
        name,
        [stepwise](int kind, Address gate, Address up, int64_t rows, int64_t width,
                   int64_t gate_stride, int64_t up_stride, int dtype, Address out,
                   int64_t out_stride) {
          gated_act({activation_of(kind), at<void>(gate), at<void>(up), width, gate_stride,
                     up_stride, dtype_of(dtype), at<void>(out), out_stride, stepwise},
                    rows);
        },
        NoGil());
  };
  bind_gate("gated_act", false);
  bind_gate("stepwise_gated_act", true);
  const auto map_rows = [&m](const char* name, void (*op)(const float*, int64_t, int64_t, float*)) {
    m.def(
        name,
        [op](Address x, int64_t rows, int64_t n, Address out) {
          op(at<float>(x), rows, n, at<float>(out));
        },
        NoGil());
  };
  map_rows("softmax", softmax);
  map_rows("logsumexp", logsumexp);
  map_rows("log_softmax", log_softmax);
  const auto map_values = [&m](const char* name, void (*op)(const float*, int64_t, float*)) {
    m.def(
        name,
        [op](Address x, int64_t count, Address out) { op(at<float>(x), count, at<float>(out)); },
        NoGil());
  };
  map_values("exp", bitlens::exp);
  map_values("log", bitlens::log);
  map_values("tanh", bitlens::tanh);
  m.def(
      "soft_cap",
      [](Address x, int64_t count, float cap, Address out) {
        soft_cap(at<float>(x), count, cap, at<float>(out));
      },
      NoGil());
}

void bind_rope(py::module_& m) {
  m.def("exp_f64", [](double x) { return spec::exp_f64(x); });
  m.def("log_f64", [](double x) { return spec::log_f64(x); });
  m.def("rope_inv_freq", [](double theta, int d_head, Address out) {
    for (int j = 0; j < d_head / 2; ++j) at<double>(out)[j] = spec::rope_inv_freq(theta, j, d_head);
  });
  m.def(
      "rope_table",
      [](Address inv_freq, int64_t half, int64_t position, int64_t count, Address cos, Address sin,
         double attention_factor) {
        parallel_for(count, [&](int64_t i) {
          for (int64_t j = 0; j < half; ++j)
            spec::rope_table_entry(at<double>(inv_freq)[j], position + i,
                                   at<float>(cos) + i * half + j, at<float>(sin) + i * half + j,
                                   attention_factor);
        });
      },
      py::arg("inv_freq"), py::arg("half"), py::arg("position"), py::arg("count"), py::arg("cos"),
      py::arg("sin"), py::arg("attention_factor") = 1.0, NoGil());
  const auto bind_rotation = [&m](const char* name, bool stepwise) {
    m.def(
        name,
        [stepwise](Address x, int dtype, int64_t rows, int64_t heads, int64_t d_head,
                   int64_t x_stride, Address positions, Address cos, Address sin,
                   int64_t n_positions, Address out, int64_t out_stride) {
          rope({at<void>(x), dtype_of(dtype), heads, d_head, x_stride, at<int64_t>(positions),
                at<float>(cos), at<float>(sin), at<void>(out), out_stride, stepwise},
               rows, n_positions);
        },
        NoGil());
  };
  bind_rotation("rope", false);
  bind_rotation("stepwise_rope", true);
}

RaggedRows rows_of(Address starts, Address past, int64_t batch) {
  return {at<int64_t>(starts), at<int64_t>(past), batch};
}

void bind_attention(py::module_& m) {
  m.def(
      "kv_write",
      [](Address k, Address v, int dtype, int64_t k_stride, int64_t v_stride, Address starts,
         Address past, int64_t batch, int64_t n_kv_heads, int64_t d_head, Address page_table,
         int64_t max_pages, Address k_pages, Address v_pages) {
        const KVPages pages = {dtype_of(dtype),         n_kv_heads, d_head,
                               at<int32_t>(page_table), max_pages,  at<void>(k_pages),
                               at<void>(v_pages)};
        kv_write(rows_of(starts, past, batch), at<void>(k), k_stride, at<void>(v), v_stride, pages);
      },
      NoGil());
  m.def(
      "attention",
      [](Address q, int dtype, int64_t q_stride, int64_t n_heads, int64_t n_kv_heads,
         int64_t d_head, float scale, float cap, int64_t window, Address starts, Address past,
         int64_t batch, Address page_table, int64_t max_pages, Address k_pages, Address v_pages,
         Address out, int64_t out_stride, Address lse) {
        const KVPages pages = {dtype_of(dtype),         n_kv_heads, d_head,
                               at<int32_t>(page_table), max_pages,  at<void>(k_pages),
                               at<void>(v_pages)};
        attention({rows_of(starts, past, batch), pages, n_heads, scale, cap, window}, at<void>(q),
                  q_stride, at<void>(out), out_stride, at<float>(lse));
      },
      NoGil());
  m.def(
      "attention_scores",
      [](Address q, int dtype, int64_t q_stride, int64_t n_heads, int64_t n_kv_heads,
         int64_t d_head, float scale, float cap, int64_t window, Address starts, Address past,
         int64_t batch, Address page_table, int64_t max_pages, Address k_pages, Address indices,
         int64_t n_indices, int64_t k_total, Address out) {
        const KVPages pages = {dtype_of(dtype), n_kv_heads,        d_head, at<int32_t>(page_table),
                               max_pages,       at<void>(k_pages), nullptr};
        attention_scores({rows_of(starts, past, batch), pages, n_heads, scale, cap, window},
                         at<void>(q), q_stride, at<int64_t>(indices), n_indices, k_total,
                         at<float>(out));
      },
      NoGil());
  m.def(
      "attention_values",
      [](Address pattern, int64_t k_total, int64_t n_heads, int64_t n_kv_heads, int64_t d_head,
         int dtype, int64_t window, Address starts, Address past, int64_t batch, Address page_table,
         int64_t max_pages, Address v_pages, Address out, int64_t out_stride) {
        const KVPages pages = {dtype_of(dtype),         n_kv_heads, d_head,
                               at<int32_t>(page_table), max_pages,  nullptr,
                               at<void>(v_pages)};
        attention_values({rows_of(starts, past, batch), pages, n_heads, 1.0f, 0.0f, window},
                         at<float>(pattern), k_total, at<void>(out), out_stride);
      },
      NoGil());
}

using NormAddresses = std::array<Address, 6>;
using ProjectionFields = std::tuple<Address, int, int64_t, int64_t, Address>;

void add_block(std::vector<BlockWeights>& blocks, const NormAddresses& norms,
               const std::array<ProjectionFields, 7>& projections,
               const std::array<int64_t, 5>& shape, int64_t window, float eps, float attn_scale,
               float attn_cap, int act) {
  const auto projection = [&](size_t i) {
    const auto& [panels, format, n, k, bias] = projections[i];
    return Projection{{at<uint8_t>(panels), format_of(format), n, k}, at<float>(bias)};
  };
  BlockWeights block{};
  block.ln1 = at<float>(norms[0]);
  block.ln2 = at<float>(norms[1]);
  block.ln1_post = at<float>(norms[2]);
  block.ln2_post = at<float>(norms[3]);
  block.q_norm = at<float>(norms[4]);
  block.k_norm = at<float>(norms[5]);
  Projection* const slots[] = {&block.q,    &block.k,  &block.v,   &block.o,
                               &block.gate, &block.up, &block.down};
  for (size_t i = 0; i < 7; ++i) *slots[i] = projection(i);
  block.d_model = shape[0];
  block.n_heads = shape[1];
  block.n_kv_heads = shape[2];
  block.d_head = shape[3];
  block.d_mlp = shape[4];
  block.window = window;
  block.eps = eps;
  block.attn_scale = attn_scale;
  block.attn_cap = attn_cap;
  block.act = activation_of(act);
  blocks.push_back(block);
}

struct Blocks {
  std::vector<BlockWeights> blocks;

  void run(size_t start, size_t stop, Address x, Address resid, int64_t values, int resid_dtype,
           int dtype, Address positions, Address starts, Address past, int64_t batch,
           Address page_table, int64_t max_pages,
           const std::vector<std::pair<Address, Address>>& pages,
           const std::vector<std::tuple<Address, Address, int64_t>>& rotary,
           const std::vector<std::pair<size_t, Address>>& tapped, int64_t n_keys) const {
    if (!tapped.empty() && stop - start != 1)
      throw std::invalid_argument("Blocks.run: taps belong to one block, give a range of one");
    Taps taps;
    taps.n_keys = n_keys;
    for (const auto& [tap, address] : tapped) taps.to.at(tap) = at<void>(address);
    if (start > stop || stop > blocks.size() || pages.size() != stop - start ||
        rotary.size() != stop - start)
      throw std::invalid_argument(
          "Blocks.run: pages and rotary must have one entry for each block of the range");
    const FloatEnvironment environment;
    const RaggedRows rows = rows_of(starts, past, batch);
    const size_t bytes = static_cast<size_t>(values) * dtype_bytes(dtype_of(resid_dtype));
    std::memcpy(at<void>(resid), at<void>(x), bytes);
    for (size_t i = start; i < stop; ++i) {
      const auto& [k_pages, v_pages] = pages[i - start];
      const auto& [cos, sin, n_positions] = rotary[i - start];
      const KVPages kv = {
          dtype_of(dtype), blocks[i].n_kv_heads, blocks[i].d_head, at<int32_t>(page_table),
          max_pages,       at<void>(k_pages),    at<void>(v_pages)};
      run_block(blocks[i], rows, at<int64_t>(positions),
                {at<float>(cos), at<float>(sin), n_positions}, kv, taps, at<void>(resid),
                dtype_of(resid_dtype));
    }
  }
};

void bind_blocks(py::module_& m) {
  m.attr("TAPS") = py::tuple(py::cast(kTapNames));
  py::class_<Blocks>(m, "Blocks")
      .def(py::init<>())
      .def("add",
           [](Blocks& self, const NormAddresses& norms,
              const std::array<ProjectionFields, 7>& projections,
              const std::array<int64_t, 5>& shape, int64_t window, float eps, float attn_scale,
              float attn_cap, int act) {
             add_block(self.blocks, norms, projections, shape, window, eps, attn_scale, attn_cap,
                       act);
           })
      .def("run", &Blocks::run, NoGil());
}

}  // namespace
}  // namespace bitlens

PYBIND11_MODULE(_core, m) {
  using namespace bitlens;
  kernels();  // an impossible BITLENS_ISA fails here, at import
  bind_machine(m);
  bind_linear(m);
  bind_rows(m);
  bind_rope(m);
  bind_attention(m);
  bind_blocks(m);
  bind_backward(m);
  bind_dictionary(m);
  bind_probes(m);
  bind_sampling(m);
}
