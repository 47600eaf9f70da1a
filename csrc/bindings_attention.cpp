// The part of bitlens._core that attends, whole and in parts.
#include "bindings_pages.h"
#include "cpu/attention.h"

namespace bitlens {
namespace {

void bind_scores(py::module_& m) {
  m.def(
      "attention_scores",
      [](const Array& q, int dtype, int64_t q_stride, int64_t n_heads, int64_t n_kv_heads,
         int64_t d_head, float scale, float cap, int64_t window, const Array& starts,
         const Array& past, int64_t batch, const Array& page_table, int64_t max_pages,
         const Array& k_pages, const Array& indices, int64_t n_indices, int64_t k_total,
         const Array& out) {
        const DType type = dtype_of(dtype);
        const RaggedRows rows = rows_of(starts, past, batch);
        const auto* chosen = at<int64_t>(indices, {n_indices}, "row_indices");
        for (int64_t i = 0; i < n_indices; ++i)
          if (chosen[i] < 0 || chosen[i] >= count_of(rows))
            throw std::out_of_range("row_indices: a row that the batch does not have");
        if (longest(rows) > k_total)
          throw std::invalid_argument("k_total: less than the longest sequence");
        const KVPages pages = pages_of(rows, type, n_kv_heads, d_head, page_table, max_pages,
                                       given(k_pages, "k_pages"), {});
        attention_scores(
            {rows, pages, n_heads, scale, cap, window},
            rows_at(q, type, count_of(rows), elements_of({n_heads, d_head}), q_stride, "q"),
            q_stride, chosen, n_indices, k_total,
            at<float>(out, {n_indices, n_heads, k_total}, "out"));
      },
      NoGil());
}

void bind_values(py::module_& m) {
  m.def(
      "attention_values",
      [](const Array& pattern, int64_t k_total, int64_t n_heads, int64_t n_kv_heads, int64_t d_head,
         int dtype, int64_t window, const Array& starts, const Array& past, int64_t batch,
         const Array& page_table, int64_t max_pages, const Array& v_pages, const Array& out,
         int64_t out_stride) {
        const DType type = dtype_of(dtype);
        const RaggedRows rows = rows_of(starts, past, batch);
        if (longest(rows) > k_total)
          throw std::invalid_argument("k_total: less than the longest sequence");
        const KVPages pages = pages_of(rows, type, n_kv_heads, d_head, page_table, max_pages, {},
                                       given(v_pages, "v_pages"));
        attention_values(
            {rows, pages, n_heads, 1.0f, 0.0f, window},
            at<float>(pattern, {count_of(rows), n_heads, k_total}, "pattern"), k_total,
            rows_at(out, type, count_of(rows), elements_of({n_heads, d_head}), out_stride, "out"),
            out_stride);
      },
      NoGil());
}

}  // namespace

void bind_attention(py::module_& m) {
  m.def(
      "kv_write",
      [](const Array& k, const Array& v, int dtype, int64_t k_stride, int64_t v_stride,
         const Array& starts, const Array& past, int64_t batch, int64_t n_kv_heads, int64_t d_head,
         const Array& page_table, int64_t max_pages, const Array& k_pages, const Array& v_pages) {
        const DType type = dtype_of(dtype);
        const RaggedRows rows = rows_of(starts, past, batch);
        const int64_t width = elements_of({n_kv_heads, d_head});
        const KVPages pages = pages_of(rows, type, n_kv_heads, d_head, page_table, max_pages,
                                       given(k_pages, "k_pages"), given(v_pages, "v_pages"));
        kv_write(rows, rows_at(k, type, count_of(rows), width, k_stride, "k"), k_stride,
                 rows_at(v, type, count_of(rows), width, v_stride, "v"), v_stride, pages);
      },
      NoGil());
  m.def(
      "attention",
      [](const Array& q, int dtype, int64_t q_stride, int64_t n_heads, int64_t n_kv_heads,
         int64_t d_head, float scale, float cap, int64_t window, const Array& starts,
         const Array& past, int64_t batch, const Array& page_table, int64_t max_pages,
         const Array& k_pages, const Array& v_pages, const Array& out, int64_t out_stride,
         const Array& lse) {
        const DType type = dtype_of(dtype);
        const RaggedRows rows = rows_of(starts, past, batch);
        const int64_t count = count_of(rows), width = elements_of({n_heads, d_head});
        const KVPages pages = pages_of(rows, type, n_kv_heads, d_head, page_table, max_pages,
                                       given(k_pages, "k_pages"), given(v_pages, "v_pages"));
        attention({rows, pages, n_heads, scale, cap, window},
                  rows_at(q, type, count, width, q_stride, "q"), q_stride,
                  rows_at(out, type, count, width, out_stride, "out"), out_stride,
                  at<float>(lse, {count, n_heads}, "lse"));
      },
      NoGil());
  bind_scores(m);
  bind_values(m);
}

}  // namespace bitlens
