#pragma once

#include "dictionary_kernels.h"

namespace bitlens {

// Operations of sparse dictionaries on many rows, split over threads by rows only. Which rows of a
// table are summed is said in ranges: row r takes entries starts[r] to starts[r + 1] of coefs and
// indices; every index is -1 (passed over) or below table_rows, else std::out_of_range is thrown.

// x [rows, n] -> values, indices [rows, k], the k largest of each row as top_k_add and top_k_finish
// say.
void top_k(const float* x, int64_t rows, int64_t n, int64_t k, float* values, int32_t* indices);

// out [rows, d] = the sum of coefs[i] * table[indices[i]] over each row's range, plus bias or null.
void weighted_sums(const float* coefs, const int32_t* indices, const int64_t* starts, int64_t rows,
                   const float* table, int64_t table_rows, int64_t d, const float* bias,
                   float* out);

// out[i] = x[row of i] . table[indices[i]].
void gathered_dots(const float* x, const int32_t* indices, const int64_t* starts, int64_t rows,
                   const float* table, int64_t table_rows, int64_t d, float* out);

// Sorts the entries of a sparse matrix by column, ascending rows in each: starts_out [columns + 1],
// and where each came from, order [entries] without those of index -1. Throws std::out_of_range for
// a column that there is not.
void by_column(const int32_t* indices, int64_t entries, int64_t columns, int64_t* starts_out,
               int32_t* order);

// out[r] = the sum of squares of x [rows, d].
void sums_of_squares(const float* x, int64_t rows, int64_t d, float* out);

void unit_rows(float* w, int64_t rows, int64_t d);
void project_rows(float* g, const float* w, int64_t rows, int64_t d);
void adam(const AdamStep& op, const float* g, int64_t count, float* p, float* m, float* v);

}  // namespace bitlens
