#include "dictionary.h"

#include <stdexcept>
#include <string>

#include "kernels.h"
#include "row_ranges.h"

namespace bitlens {
namespace {

void check_indices(const int32_t* indices, int64_t count, int64_t limit) {
  for (int64_t i = 0; i < count; ++i)
    if (indices[i] < -1 || indices[i] >= limit)
      throw std::out_of_range("index " + std::to_string(indices[i]) + " of a table with " +
                              std::to_string(limit) + " rows");
}

}  // namespace

void top_k(const float* x, int64_t rows, int64_t n, int64_t k, float* values, int32_t* indices) {
  const DictionaryKernels& kernel = kernels().dictionary;
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      TopKSoFar found = {values + r * k, indices + r * k, k, 0};
      kernel.top_k_add(x + r * n, n, 0, &found);
      kernel.top_k_finish(&found);
    }
  });
}

void weighted_sums(const float* coefs, const int32_t* indices, const int64_t* starts, int64_t rows,
                   const float* table, int64_t table_rows, int64_t d, const float* bias,
                   float* out) {
  check_indices(indices, starts[rows], table_rows);
  const DictionaryKernels& kernel = kernels().dictionary;
  const int64_t each = (starts[rows] / (rows > 0 ? rows : 1) + 1) * d;
  for_rows(rows, each, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      kernel.weighted_sum(coefs + starts[r], indices + starts[r], starts[r + 1] - starts[r], table,
                          d, bias, out + r * d);
  });
}

void gathered_dots(const float* x, const int32_t* indices, const int64_t* starts, int64_t rows,
                   const float* table, int64_t table_rows, int64_t d, float* out) {
  check_indices(indices, starts[rows], table_rows);
  const DictionaryKernels& kernel = kernels().dictionary;
  const int64_t each = (starts[rows] / (rows > 0 ? rows : 1) + 1) * d;
  for_rows(rows, each, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      kernel.dots(x + r * d, indices + starts[r], starts[r + 1] - starts[r], table, d,
                  out + starts[r]);
  });
}

void by_column(const int32_t* indices, int64_t entries, int64_t columns, int64_t* starts_out,
               int32_t* order) {
  check_indices(indices, entries, columns);
  for (int64_t c = 0; c <= columns; ++c) starts_out[c] = 0;
  for (int64_t i = 0; i < entries; ++i)
    if (indices[i] >= 0) ++starts_out[indices[i] + 1];
  for (int64_t c = 0; c < columns; ++c) starts_out[c + 1] += starts_out[c];
  // Each start serves as its column's cursor and ends up as the next column's start.
  for (int64_t i = 0; i < entries; ++i)
    if (indices[i] >= 0) order[starts_out[indices[i]]++] = static_cast<int32_t>(i);
  for (int64_t c = columns; c > 0; --c) starts_out[c] = starts_out[c - 1];
  starts_out[0] = 0;
}

void sums_of_squares(const float* x, int64_t rows, int64_t d, float* out) {
  const DictionaryKernels& kernel = kernels().dictionary;
  for_rows(rows, d, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) out[r] = kernel.sum_of_squares(x + r * d, d);
  });
}

void unit_rows(float* w, int64_t rows, int64_t d) {
  const DictionaryKernels& kernel = kernels().dictionary;
  for_rows(rows, d, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) kernel.unit_row(w + r * d, d);
  });
}

void project_rows(float* g, const float* w, int64_t rows, int64_t d) {
  const DictionaryKernels& kernel = kernels().dictionary;
  for_rows(rows, d, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) kernel.project_row(g + r * d, w + r * d, d);
  });
}

void adam(const AdamStep& op, const float* g, int64_t count, float* p, float* m, float* v) {
  const DictionaryKernels& kernel = kernels().dictionary;
  for_elements(count, [&](int64_t begin, int64_t end) {
    kernel.adam(op, g + begin, end - begin, p + begin, m + begin, v + begin);
  });
}

}  // namespace bitlens
