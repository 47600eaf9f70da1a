// The part of bitlens._core for sparse dictionaries and their training.
#include "bindings.h"
#include "cpu/dictionary.h"
#include "cpu/encode.h"

namespace bitlens {
namespace {

template <typename T>
void copy_to(const std::vector<T>& from, const Array& to, const char* name) {
  std::copy(from.begin(), from.end(), at<T>(to, {static_cast<int64_t>(from.size())}, name));
}

Encoded encoded(const Array& x, int64_t m, const Array& panels, int format, int64_t n, int64_t k,
                const Array& bias) {
  return {at<float>(x, {m, k}, "x"), m, matrix_of(panels, format, n, k),
          maybe<float>(bias, {n}, "bias")};
}

void bind_encoding(py::module_& m) {
  py::class_<ActiveFeatures>(m, "ActiveFeatures")
      .def_property_readonly("entries", [](const ActiveFeatures& f) { return f.indices.size(); })
      .def("write", [](const ActiveFeatures& f, const Array& starts, const Array& indices,
                       const Array& values) {
        copy_to(f.starts, starts, "starts");
        copy_to(f.indices, indices, "indices");
        copy_to(f.values, values, "values");
      });
  m.def(
      "encode_above",
      [](const Array& x, int64_t m, const Array& panels, int format, int64_t n, int64_t k,
         const Array& bias, const Array& thresholds) {
        return encode_above(encoded(x, m, panels, format, n, k, bias),
                            at<float>(thresholds, {n}, "thresholds"));
      },
      NoGil());
  m.def(
      "encode_top_k",
      [](const Array& x, int64_t m, const Array& panels, int format, int64_t n, int64_t k,
         const Array& bias, int64_t selected, const Array& values, const Array& indices) {
        encode_top_k(encoded(x, m, panels, format, n, k, bias), selected,
                     at<float>(values, {m, selected}, "values"),
                     at<int32_t>(indices, {m, selected}, "indices"));
      },
      NoGil());
}

}  // namespace

void bind_dictionary(py::module_& m) {
  bind_encoding(m);
  m.def(
      "top_k",
      [](const Array& x, int64_t rows, int64_t n, int64_t k, const Array& values,
         const Array& indices) {
        top_k(at<float>(x, {rows, n}, "x"), rows, n, k, at<float>(values, {rows, k}, "values"),
              at<int32_t>(indices, {rows, k}, "indices"));
      },
      NoGil());
  m.def(
      "weighted_sums",
      [](const Array& coefs, const Array& indices, const Array& starts, int64_t rows,
         const Array& table, int64_t table_rows, int64_t d, const Array& bias, const Array& out) {
        const Ranges ranges = ranges_of(starts, rows);
        weighted_sums(at<float>(coefs, {ranges.entries}, "coefs"),
                      at<int32_t>(indices, {ranges.entries}, "indices"), ranges.starts, rows,
                      at<float>(table, {table_rows, d}, "table"), table_rows, d,
                      maybe<float>(bias, {d}, "bias"), at<float>(out, {rows, d}, "out"));
      },
      NoGil());
  m.def(
      "gathered_dots",
      [](const Array& x, const Array& indices, const Array& starts, int64_t rows,
         const Array& table, int64_t table_rows, int64_t d, const Array& out) {
        const Ranges ranges = ranges_of(starts, rows);
        gathered_dots(at<float>(x, {rows, d}, "x"),
                      at<int32_t>(indices, {ranges.entries}, "indices"), ranges.starts, rows,
                      at<float>(table, {table_rows, d}, "table"), table_rows, d,
                      at<float>(out, {ranges.entries}, "out"));
      },
      NoGil());
  m.def(
      "by_column",
      [](const Array& indices, int64_t entries, int64_t columns, const Array& starts,
         const Array& order) {
        by_column(at<int32_t>(indices, {entries}, "indices"), entries, columns,
                  at<int64_t>(starts, {columns + 1}, "starts"),
                  at<int32_t>(order, {entries}, "order"));
      },
      NoGil());
  m.def(
      "sums_of_squares",
      [](const Array& x, int64_t rows, int64_t d, const Array& out) {
        sums_of_squares(at<float>(x, {rows, d}, "x"), rows, d, at<float>(out, {rows}, "out"));
      },
      NoGil());
  m.def(
      "unit_rows",
      [](const Array& w, int64_t rows, int64_t d) {
        unit_rows(at<float>(w, {rows, d}, "w"), rows, d);
      },
      NoGil());
  m.def(
      "project_rows",
      [](const Array& g, const Array& w, int64_t rows, int64_t d) {
        project_rows(at<float>(g, {rows, d}, "g"), at<float>(w, {rows, d}, "w"), rows, d);
      },
      NoGil());
  m.def(
      "adam",
      [](const Array& g, int64_t count, float beta1, float one_minus_beta1, float beta2,
         float one_minus_beta2, float step, float v_scale, float eps, float clip, float decay,
         const Array& p, const Array& first, const Array& second) {
        adam({beta1, one_minus_beta1, beta2, one_minus_beta2, step, v_scale, eps, clip, decay},
             at<float>(g, {count}, "g"), count, at<float>(p, {count}, "p"),
             at<float>(first, {count}, "first"), at<float>(second, {count}, "second"));
      },
      NoGil());
}

}  // namespace bitlens
