// Sequences and the pages of their keys and values, as Python hands them over.
#pragma once

#include <algorithm>

#include "bindings.h"
#include "cpu/kv_pages.h"

namespace bitlens {

// Ragged rows whose bounds are in order.
inline RaggedRows rows_of(const Array& starts, const Array& past, int64_t batch) {
  const RaggedRows rows = {at<int64_t>(starts, {batch + 1}, "starts"),
                           at<int64_t>(past, {batch}, "past"), batch};
  bool good = rows.starts[0] == 0;
  for (int64_t b = 0; b < batch; ++b)
    good = good && rows.starts[b] <= rows.starts[b + 1] && rows.past[b] >= 0;
  if (!good) throw std::invalid_argument("starts, past: expected 0, ascending, and no negative");
  return rows;
}

inline int64_t count_of(const RaggedRows& rows) { return rows.starts[rows.batch]; }

inline int64_t total_of(const RaggedRows& rows, int64_t b) {
  return rows.past[b] + rows.starts[b + 1] - rows.starts[b];
}

// Key positions of the longest sequence.
inline int64_t longest(const RaggedRows& rows) {
  int64_t keys = 0;
  for (int64_t b = 0; b < rows.batch; ++b) keys = std::max(keys, total_of(rows, b));
  return keys;
}

// Pages of keys, of values, or both; every page that a sequence uses lies inside them.
inline KVPages pages_of(const RaggedRows& rows, DType dtype, int64_t n_kv_heads, int64_t d_head,
                        const Array& page_table, int64_t max_pages, const Array& k,
                        const Array& v) {
  const auto* table = at<int32_t>(page_table, {rows.batch, max_pages}, "page_table");
  int64_t last = -1;
  for (int64_t b = 0; b < rows.batch; ++b) {
    const int64_t used = (total_of(rows, b) + kPageKeys - 1) / kPageKeys;
    if (used > max_pages)
      throw std::invalid_argument("page_table: a sequence has more keys than pages");
    for (int64_t i = b * max_pages; i < b * max_pages + used; ++i) {
      if (table[i] < 0) throw std::invalid_argument("page_table: a page below 0");
      last = std::max<int64_t>(last, table[i]);
    }
  }
  const std::initializer_list<int64_t> shape = {last + 1, n_kv_heads, d_head, kPageKeys};
  return {dtype,
          n_kv_heads,
          d_head,
          table,
          max_pages,
          maybe(k, dtype, shape, "k_pages"),
          maybe(v, dtype, shape, "v_pages")};
}

}  // namespace bitlens
