// Sums of weight gradients (csrc/spec/weight_gradients.h) and gradients of log-probabilities.
#pragma once

#include "types.h"

namespace bitlens {

// One leaf of at most 256 rows of gradients [rows, d].
struct GradientLeaf {
  const void* dy;
  DType dtype;
  int64_t rows, d;
};

struct TrainingKernels {
  int64_t tile_rows, tile_columns;  // of a register tile of a matrix's gradient

  // Columns [begin, begin + width) of x [rows, stride], widened, `padded` a row, zeros behind.
  void (*gather)(const void* x, DType dtype, int64_t rows, int64_t stride, int64_t begin,
                 int64_t width, int64_t padded, float* out);
  // sums [rows, columns], `stride` apart, plus the chains over `depth` of dy [depth, tile_rows] and
  // x [depth, tile_columns]; rows and columns are at most the tile's.
  void (*add_tile)(const float* dy, const float* x, int64_t depth, int64_t rows, int64_t columns,
                   float* sums, int64_t stride);
  // Columns [begin, end): sums plus the chains of dy * normalized, of dy.
  void (*add_products)(const GradientLeaf& leaf, const float* normalized, int64_t begin,
                       int64_t end, float* sums);
  void (*add_rows)(const GradientLeaf& leaf, int64_t begin, int64_t end, float* sums);
  // sums [d] plus the chain of scale * dresid over some of a leaf's rows.
  void (*add_scaled)(const float* dresid, const int32_t* rows, int64_t count, float scale,
                     int64_t d, float* sums);
  // The gradient of a token's log-probability at its row of n logits.
  void (*logprob_backward)(const float* logits, int64_t n, int64_t token, float temperature,
                           float x_max, float z, float dlogprob, float* out);
};

namespace generic {
const TrainingKernels& training_kernels();
}
namespace avx2 {
const TrainingKernels& training_kernels();
}
namespace avx512 {
const TrainingKernels& training_kernels();
}

}  // namespace bitlens
