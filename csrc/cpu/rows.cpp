#include "rows.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "float_environment.h"
#include "kernels.h"
#include "threads.h"

namespace bitlens {
namespace {

// Waking threads costs as much as this many elements.
constexpr int64_t kSerialElements = 1 << 16;
constexpr int64_t kRangesPerThread = 4;

// Calls body(begin, end) over [0, count), in one range if the work is small.
template <typename Body>
void for_ranges(int64_t count, int64_t elements_each, int64_t align, Body&& body) {
  const FloatEnvironment environment;
  const int threads = num_threads();
  if (threads == 1 || count * elements_each <= kSerialElements) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  const int64_t ranges = threads * kRangesPerThread;
  const int64_t step = ((count + ranges - 1) / ranges + align - 1) / align * align;
  parallel_for((count + step - 1) / step,
               [&](int64_t i) { body(i * step, std::min(count, (i + 1) * step)); });
}

template <typename Body>
void for_rows(int64_t rows, int64_t elements_each, Body&& body) {
  for_ranges(rows, elements_each, 1, body);
}

// Ranges of whole cache lines, so that no two threads write one.
template <typename Body>
void for_elements(int64_t count, Body&& body) {
  for_ranges(count, 1, 64, body);
}

const uint8_t* at(const void* p, int64_t index, DType dtype) {
  return static_cast<const uint8_t*>(p) + index * static_cast<int64_t>(dtype_bytes(dtype));
}

uint8_t* at(void* p, int64_t index, DType dtype) {
  return static_cast<uint8_t*>(p) + index * static_cast<int64_t>(dtype_bytes(dtype));
}

}  // namespace

void rms_norm(const RmsNorm& op, int64_t rows) {
  const RowKernels& k = kernels().rows;
  for_rows(rows, op.heads * op.d, [&](int64_t begin, int64_t end) { k.rms_norm(op, begin, end); });
}

void normalize(const void* x, const float* scale, int64_t rows, int64_t d, DType dtype,
               float* out) {
  const RowKernels& k = kernels().rows;
  for_rows(rows, d, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      k.normalize(at(x, r * d, dtype), scale[r], d, dtype, out + r * d);
  });
}

void norm_weight(const float* normalized, const float* weight, int64_t rows, int64_t d, void* out,
                 DType dtype) {
  const RowKernels& k = kernels().rows;
  for_rows(rows, d, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      k.norm_weight(normalized + r * d, weight, d, at(out, r * d, dtype), dtype);
  });
}

void add(const void* x, DType dtype, const void* y, DType y_dtype, int64_t count, void* out) {
  const RowKernels& k = kernels().rows;
  for_elements(count, [&](int64_t begin, int64_t end) {
    k.add(at(x, begin, dtype), dtype, at(y, begin, y_dtype), y_dtype, end - begin,
          at(out, begin, dtype));
  });
}

void rope(const Rope& op, int64_t rows, int64_t n_positions) {
  for (int64_t r = 0; r < rows; ++r)
    if (op.positions[r] < 0 || op.positions[r] >= n_positions)
      throw std::out_of_range("rope: position " + std::to_string(op.positions[r]) +
                              " is outside the tables of " + std::to_string(n_positions) + " rows");
  const RowKernels& k = kernels().rows;
  for_rows(rows, op.heads * op.d_head, [&](int64_t begin, int64_t end) { k.rope(op, begin, end); });
}

void gated_act(const GatedAct& op, int64_t rows) {
  const RowKernels& k = kernels().rows;
  for_rows(rows, op.m, [&](int64_t begin, int64_t end) { k.gated_act(op, begin, end); });
}

void softmax(const float* x, int64_t rows, int64_t n, float* out) {
  const RowKernels& k = kernels().rows;
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) k.softmax(x + r * n, n, out + r * n);
  });
}

void logsumexp(const float* x, int64_t rows, int64_t n, float* out) {
  const RowKernels& k = kernels().rows;
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) out[r] = k.logsumexp(x + r * n, n);
  });
}

void log_softmax(const float* x, int64_t rows, int64_t n, float* out) {
  const RowKernels& k = kernels().rows;
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) k.log_softmax(x + r * n, n, out + r * n);
  });
}

void exp(const float* x, int64_t count, float* out) {
  const RowKernels& k = kernels().rows;
  for_elements(count,
               [&](int64_t begin, int64_t end) { k.exp(x + begin, end - begin, out + begin); });
}

void log(const float* x, int64_t count, float* out) {
  const RowKernels& k = kernels().rows;
  for_elements(count,
               [&](int64_t begin, int64_t end) { k.log(x + begin, end - begin, out + begin); });
}

void tanh(const float* x, int64_t count, float* out) {
  const RowKernels& k = kernels().rows;
  for_elements(count,
               [&](int64_t begin, int64_t end) { k.tanh(x + begin, end - begin, out + begin); });
}

void soft_cap(const float* x, int64_t count, float cap, float* out) {
  const RowKernels& k = kernels().rows;
  for_elements(count, [&](int64_t begin, int64_t end) {
    k.soft_cap(x + begin, end - begin, cap, out + begin);
  });
}

}  // namespace bitlens
