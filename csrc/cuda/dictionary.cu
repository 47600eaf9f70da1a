// Sparse dictionaries: the first of a row, and sums of few rows of a table
// (csrc/spec/dictionary.h). encode.cu multiplies, too.
#include "../spec/dictionary.h"
#include "../spec/sampling.h"
#include "compact.h"
#include "library.h"
#include "sampling.h"

namespace bitlens::cuda {
namespace {

static_assert(kRowThreads == kSampleThreads);

// A thread block a row.
__global__ void __launch_bounds__(kRowThreads)
    top_k(const float* rows, int64_t n, int64_t k, float* values, int32_t* indices) {
  BL_SHARED(SampleShared, shared, 1);
  BL_SHARED(unsigned, counts, kRowWarps);
  const float* x = rows + blockIdx.x * n;
  const auto number = [&](int64_t i) { return static_cast<Counter>(x[i] == x[i]); };
  const auto key = [&](int64_t i) { return spec::order_key(x[i], static_cast<uint32_t>(i)); };
  const Counter there = sum_over(shared, n, number), wanted = static_cast<Counter>(k);
  const uint64_t last = wanted < there ? select(shared, n, wanted, key, number) : 0;
  const int64_t at = blockIdx.x * k;
  const int64_t written = compact(
      n, counts, [&](int64_t i) { return number(i) != 0 && key(i) >= last; },
      [&](int64_t slot, int64_t i) {
        values[at + slot] = x[i];
        indices[at + slot] = static_cast<int32_t>(i);
      });
  for (int64_t i = written + threadIdx.x; i < k; i += kRowThreads)
    values[at + i] = 0.0f, indices[at + i] = -1;
}

// Sums of rows of a table, a thread a column. grid: rows, tiles of columns.
__global__ void __launch_bounds__(kRowThreads)
    weighted_sums(const float* coefs, const int32_t* indices, const int64_t* starts,
                  const float* table, int64_t d, const float* bias, float* out) {
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kRowThreads + threadIdx.x;
  if (c >= d) return;
  const int64_t first = starts[blockIdx.x], count = starts[blockIdx.x + 1] - first;
  out[blockIdx.x * d + c] = spec::weighted_sum(coefs + first, indices + first, count, table + c, d,
                                               bias == nullptr ? nullptr : bias + c);
}

// The row whose entries hold this one.
__device__ int64_t row_of(const int64_t* starts, int64_t rows, int64_t entry) {
  int64_t low = 0, high = rows;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (starts[middle] <= entry ? low : high) = middle;
  }
  return low;
}

// A thread block an entry.
__global__ void __launch_bounds__(kRowThreads)
    gathered_dots(const float* x, const int32_t* indices, const int64_t* starts, int64_t rows,
                  const float* table, int64_t d, float* out) {
  BL_SHARED(float, sums, kGroups);
  const int32_t index = indices[blockIdx.x];
  if (index < 0) {
    if (threadIdx.x == 0) out[blockIdx.x] = 0.0f;
    return;
  }
  const float* a = x + row_of(starts, rows, blockIdx.x) * d;
  const float* b = table + index * d;
  const float dot =
      row_reduce(0, d, sums, [&](int64_t i, float acc) { return spec::fma32(a[i], b[i], acc); });
  if (threadIdx.x == 0) out[blockIdx.x] = dot;
}

__device__ float squares_of(const float* x, int64_t d, float* sums) {
  return row_reduce(0, d, sums, [&](int64_t i, float acc) { return spec::fma32(x[i], x[i], acc); });
}

__global__ void __launch_bounds__(kRowThreads)
    sums_of_squares(const float* x, int64_t d, float* out) {
  BL_SHARED(float, sums, kGroups);
  const float sum = squares_of(x + blockIdx.x * d, d, sums);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kRowThreads) unit_rows(float* rows, int64_t d) {
  BL_SHARED(float, sums, kGroups);
  float* w = rows + blockIdx.x * d;
  const float norm = sqrtf(squares_of(w, d, sums));
  if (norm == 0.0f) return;
  for (int64_t i = threadIdx.x; i < d; i += kRowThreads) w[i] = w[i] / norm;
}

dim3 grid_of(int64_t rows) { return dim3(static_cast<unsigned>(rows)); }

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_top_k(const float* x, int64_t rows, int64_t n, int64_t k, float* values, int32_t* indices,
              void* stream) {
  return launch(Kernel::TOP_K, top_k, grid_of(rows), kRowThreads, 0, stream, x, n, k, values,
                indices);
}

int blc_weighted_sums(const float* coefs, const int32_t* indices, const int64_t* starts,
                      int64_t rows, const float* table, int64_t d, const float* bias, float* out,
                      void* stream) {
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>((d + kRowThreads - 1) / kRowThreads));
  return launch(Kernel::WEIGHTED_SUMS, weighted_sums, grid, kRowThreads, 0, stream, coefs, indices,
                starts, table, d, bias, out);
}

int blc_gathered_dots(const float* x, const int32_t* indices, const int64_t* starts, int64_t rows,
                      int64_t entries, const float* table, int64_t d, float* out, void* stream) {
  return launch(Kernel::GATHERED_DOTS, gathered_dots, grid_of(entries), kRowThreads, 0, stream, x,
                indices, starts, rows, table, d, out);
}

int blc_sums_of_squares(const float* x, int64_t rows, int64_t d, float* out, void* stream) {
  return launch(Kernel::SUMS_OF_SQUARES, sums_of_squares, grid_of(rows), kRowThreads, 0, stream, x,
                d, out);
}

int blc_unit_rows(float* w, int64_t rows, int64_t d, void* stream) {
  return launch(Kernel::UNIT_ROWS, unit_rows, grid_of(rows), kRowThreads, 0, stream, w, d);
}
