// Weight gradients and gradients of log-probabilities, compiled once per instruction set: the
// chains of csrc/spec/weight_gradients.h, a lane an entry of the gradient.
#include "../simd_math.h"
#include "../simd_rows.h"
#include "../training_kernels.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

#if defined(BITLENS_ISA_AVX512)
constexpr int kRows = 12, kVectors = 2;
#elif defined(BITLENS_ISA_AVX2)
constexpr int kRows = 6, kVectors = 1;
#else
constexpr int kRows = 4, kVectors = 1;
#endif

template <typename T>
void gather_as(const T* x, int64_t rows, int64_t stride, int64_t begin, int64_t width,
               int64_t padded, float* out) {
  for (int64_t row = 0; row < rows; ++row, out += padded) {
    const T* from = x + row * stride + begin;
    for (int64_t i = 0; i < padded; i += 16) {
      const int64_t left = width - i;
      const f32x16 v =
          left <= 0 ? zero() : load_n(from + i, left < 16 ? static_cast<int>(left) : 16);
      store_n(out + i, v, padded - i < 16 ? static_cast<int>(padded - i) : 16);
    }
  }
}

void gather(const void* x, DType dtype, int64_t rows, int64_t stride, int64_t begin, int64_t width,
            int64_t padded, float* out) {
  if (dtype == DType::F32)
    return gather_as(static_cast<const float*>(x), rows, stride, begin, width, padded, out);
  gather_as(static_cast<const uint16_t*>(x), rows, stride, begin, width, padded, out);
}

void add_tile(const float* dy, const float* x, int64_t depth, int64_t rows, int64_t columns,
              float* sums, int64_t stride) {
  f32x16 acc[kRows][kVectors];
  for (int m = 0; m < kRows; ++m)
    for (int v = 0; v < kVectors; ++v) acc[m][v] = zero();
  for (int64_t t = 0; t < depth; ++t, dy += kRows, x += 16 * kVectors) {
    f32x16 b[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) b[v] = load(x + 16 * v);
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
      const f32x16 a = splat(dy[m]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) acc[m][v] = fma(a, b[v], acc[m][v]);
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    if (m >= rows) break;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = columns - 16 * v;
      if (left <= 0) break;
      const int n = left < 16 ? static_cast<int>(left) : 16;
      float* at = sums + m * stride + 16 * v;
      store_n(at, load_n(at, n) + acc[m][v], n);
    }
  }
}

// sums [begin, end) plus a chain over rows of what term(row, column, n, acc) adds.
template <typename Term>
void add_chains(int64_t rows, int64_t begin, int64_t end, float* sums, Term term) {
  for_lanes(end - begin, [&](int64_t i, int n) {
    f32x16 acc = zero();
    for (int64_t row = 0; row < rows; ++row) acc = term(row, begin + i, n, acc);
    store_n(sums + begin + i, load_n(sums + begin + i, n) + acc, n);
  });
}

template <typename T>
void add_products_as(const GradientLeaf& leaf, const float* normalized, int64_t begin, int64_t end,
                     float* sums) {
  const T* dy = static_cast<const T*>(leaf.dy);
  add_chains(leaf.rows, begin, end, sums, [&](int64_t row, int64_t i, int n, f32x16 acc) {
    const int64_t at = row * leaf.d + i;
    return fma(load_n(dy + at, n), load_n(normalized + at, n), acc);
  });
}

void add_products(const GradientLeaf& leaf, const float* normalized, int64_t begin, int64_t end,
                  float* sums) {
  leaf.dtype == DType::F32 ? add_products_as<float>(leaf, normalized, begin, end, sums)
                           : add_products_as<uint16_t>(leaf, normalized, begin, end, sums);
}

template <typename T>
void add_rows_as(const GradientLeaf& leaf, int64_t begin, int64_t end, float* sums) {
  const T* dy = static_cast<const T*>(leaf.dy);
  add_chains(leaf.rows, begin, end, sums, [&](int64_t row, int64_t i, int n, f32x16 acc) {
    return acc + load_n(dy + row * leaf.d + i, n);
  });
}

void add_rows(const GradientLeaf& leaf, int64_t begin, int64_t end, float* sums) {
  leaf.dtype == DType::F32 ? add_rows_as<float>(leaf, begin, end, sums)
                           : add_rows_as<uint16_t>(leaf, begin, end, sums);
}

void add_scaled(const float* dresid, const int32_t* rows, int64_t count, float scale, int64_t d,
                float* sums) {
  const f32x16 factor = splat(scale);
  add_chains(count, 0, d, sums, [&](int64_t i, int64_t column, int n, f32x16 acc) {
    return fma(factor, load_n(dresid + rows[i] * d + column, n), acc);
  });
}

void logprob_backward(const float* logits, int64_t n, int64_t token, float temperature, float x_max,
                      float z, float dlogprob, float* out) {
  const f32x16 t = splat(temperature), top = splat(x_max), sum = splat(z), g = splat(dlogprob);
  for_lanes(n, [&](int64_t i, int left) {
    const f32x16 x = load_n(logits + i, left) / t + zero();
    f32x16 chosen = zero();
    if (token >= i && token < i + left) {
      alignas(64) float lane[16] = {};
      lane[token - i] = 1.0f;
      chosen = load(lane);
    }
    store_n(out + i, (g * (chosen - exp(x - top) / sum)) / t, left);
  });
}

constexpr TrainingKernels kTrainingKernels = {
    kRows, 16 * kVectors, gather, add_tile, add_products, add_rows, add_scaled, logprob_backward};

}  // namespace

const TrainingKernels& training_kernels() { return kTrainingKernels; }

}  // namespace bitlens::BITLENS_ISA_NS
