// The part of bitlens._core for sparse dictionaries and their training.
#include "bindings.h"
#include "cpu/dictionary.h"
#include "cpu/encode.h"

namespace bitlens {
namespace {

template <typename T>
void copy_to(const std::vector<T>& from, Address to) {
  std::copy(from.begin(), from.end(), at<T>(to));
}

Encoded encoded(Address x, int64_t m, Address weight, int format, int64_t n, int64_t k,
                Address bias) {
  return {
      at<float>(x), m, {at<uint8_t>(weight), static_cast<Format>(format), n, k}, at<float>(bias)};
}

void bind_encoding(py::module_& m) {
  py::class_<ActiveFeatures>(m, "ActiveFeatures")
      .def_property_readonly("entries", [](const ActiveFeatures& f) { return f.indices.size(); })
      .def("write", [](const ActiveFeatures& f, Address starts, Address indices, Address values) {
        copy_to(f.starts, starts);
        copy_to(f.indices, indices);
        copy_to(f.values, values);
      });
  m.def(
      "encode_above",
      [](Address x, int64_t m, Address weight, int format, int64_t n, int64_t k, Address bias,
         Address thresholds) {
        return encode_above(encoded(x, m, weight, format, n, k, bias), at<float>(thresholds));
      },
      NoGil());
  m.def(
      "encode_top_k",
      [](Address x, int64_t m, Address weight, int format, int64_t n, int64_t k, Address bias,
         int64_t selected, Address values, Address indices) {
        encode_top_k(encoded(x, m, weight, format, n, k, bias), selected, at<float>(values),
                     at<int32_t>(indices));
      },
      NoGil());
}

}  // namespace

void bind_dictionary(py::module_& m) {
  bind_encoding(m);
  m.def(
      "top_k",
      [](Address x, int64_t rows, int64_t n, int64_t k, Address values, Address indices) {
        top_k(at<float>(x), rows, n, k, at<float>(values), at<int32_t>(indices));
      },
      NoGil());
  m.def(
      "weighted_sums",
      [](Address coefs, Address indices, Address starts, int64_t rows, Address table,
         int64_t table_rows, int64_t d, Address bias, Address out) {
        weighted_sums(at<float>(coefs), at<int32_t>(indices), at<int64_t>(starts), rows,
                      at<float>(table), table_rows, d, at<float>(bias), at<float>(out));
      },
      NoGil());
  m.def(
      "gathered_dots",
      [](Address x, Address indices, Address starts, int64_t rows, Address table,
         int64_t table_rows, int64_t d, Address out) {
        gathered_dots(at<float>(x), at<int32_t>(indices), at<int64_t>(starts), rows,
                      at<float>(table), table_rows, d, at<float>(out));
      },
      NoGil());
  m.def(
      "by_column",
      [](Address indices, int64_t entries, int64_t columns, Address starts, Address order) {
        by_column(at<int32_t>(indices), entries, columns, at<int64_t>(starts), at<int32_t>(order));
      },
      NoGil());
  m.def(
      "sums_of_squares",
      [](Address x, int64_t rows, int64_t d, Address out) {
        sums_of_squares(at<float>(x), rows, d, at<float>(out));
      },
      NoGil());
  m.def(
      "unit_rows", [](Address w, int64_t rows, int64_t d) { unit_rows(at<float>(w), rows, d); },
      NoGil());
  m.def(
      "project_rows",
      [](Address g, Address w, int64_t rows, int64_t d) {
        project_rows(at<float>(g), at<float>(w), rows, d);
      },
      NoGil());
  m.def(
      "adam",
      [](Address g, int64_t count, float beta1, float one_minus_beta1, float beta2,
         float one_minus_beta2, float step, float v_scale, float eps, float clip, Address p,
         Address first, Address second) {
        adam({beta1, one_minus_beta1, beta2, one_minus_beta2, step, v_scale, eps, clip},
             at<float>(g), count, at<float>(p), at<float>(first), at<float>(second));
      },
      NoGil());
}

}  // namespace bitlens
