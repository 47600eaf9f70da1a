#include "rows.h"

#include <stdexcept>
#include <string>

#include "../spec/reductions.h"
#include "kernels.h"
#include "row_ranges.h"
#include "scratch.h"

namespace bitlens {
namespace {

// How many rows have a target.
int64_t counted(const CrossEntropy& op, int64_t rows) {
  int64_t count = 0;
  for (int64_t r = 0; r < rows; ++r) {
    if (op.targets[r] == op.ignored) continue;
    if (op.targets[r] < 0 || op.targets[r] >= op.n)
      throw std::out_of_range("cross_entropy: target " + std::to_string(op.targets[r]) +
                              " is none of " + std::to_string(op.n) + " classes, nor ignored");
    ++count;
  }
  return count;
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

void cast(const void* x, DType dtype, int64_t count, void* out, DType out_dtype) {
  const RowKernels& k = kernels().rows;
  for_elements(count, [&](int64_t begin, int64_t end) {
    k.cast(at(x, begin, dtype), dtype, end - begin, at(out, begin, out_dtype), out_dtype);
  });
}

void scale_scores(const float* x, float scale, int64_t count, DType dtype, void* out) {
  const RowKernels& k = kernels().rows;
  for_elements(count, [&](int64_t begin, int64_t end) {
    k.scale_scores(x + begin, scale, end - begin, dtype, at(out, begin, dtype));
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

void cross_entropy(const CrossEntropy& op, int64_t rows, float* mean) {
  const int64_t count = counted(op, rows);
  if (mean != nullptr && count == 0)
    throw std::invalid_argument("cross_entropy: every target is ignored, so there is no mean");
  const RowKernels& k = kernels().rows;
  for_rows(rows, op.n, [&](int64_t begin, int64_t end) {
    static thread_local Scratch scratch;
    float* wide = op.dtype == DType::F32 ? nullptr : scratch.floats(op.n);
    for (int64_t r = begin; r < end; ++r)
      op.losses[r] = op.targets[r] == op.ignored
                         ? 0.0f
                         : k.cross_entropy(at(op.x, r * op.n, op.dtype), op.dtype, op.n,
                                           op.targets[r], op.smoothing, wide);
  });
  if (mean != nullptr) *mean = spec::row_sum(op.losses, rows) / static_cast<float>(count);
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

void soft_cap_backward(const float* dy, const float* y, int64_t count, float cap, float* dx) {
  const RowKernels& k = kernels().rows;
  for_elements(count, [&](int64_t begin, int64_t end) {
    k.soft_cap_backward(dy + begin, y + begin, end - begin, cap, dx + begin);
  });
}

}  // namespace bitlens
