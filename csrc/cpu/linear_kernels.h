#pragma once

#include "types.h"

namespace bitlens {

// A weight matrix [n, k] in panels of 32 outputs (see isa/weight_panels.h for the layouts).
struct PackedMatrix {
  const uint8_t* data;
  Format format;
  int64_t n, k;
};

// One product of a linear: out[m, n] = round(x[m, k] . weight[n, k] + bias[n]).
struct LinearOutput {
  PackedMatrix weight;
  const float* bias;  // may be null
  void* out;
  DType dtype;
  int64_t stride;  // elements between rows of out
};

// Activations packed in tiles of tile_rows rows (the last one narrower), each of depth k1 - k0.
// They are rows row0 .. row0 + rows of all_rows of the output, k0 and k1 whole leaves of its depth.
struct RowTiles {
  const uint32_t* words;
  int64_t rows, row0, all_rows;
  int64_t k0, k1;
  int64_t threads;  // that work on panels at the same time
};

struct LinearKernels {
  int64_t tile_rows;    // rows of a register tile
  int64_t direct_rows;  // up to this many rows, weights are widened in registers

  // Rows of activations as the kernels below read them, and the 32-bit words that they take.
  int64_t (*packed_words)(int64_t rows, int64_t k);
  void (*pack_rows)(const void* x, DType dtype, int64_t rows, int64_t k, int64_t stride,
                    uint32_t* words);

  // Few rows: m <= direct_rows packed together, `count` panels from `panel` on.
  void (*direct)(const uint32_t* words, int64_t m, const LinearOutput& to, int64_t panel,
                 int64_t count);
  // Many rows: one panel. scratch holds one widened leaf of it; totals [rows][32] the sums so far,
  // started where k0 is 0 and finished into the output where k1 is the whole depth.
  void (*tiles)(const RowTiles& rows, const LinearOutput& to, int64_t panel, float* scratch,
                float* totals);
  // Rows of the weight matrix itself, widened to fp32: out [k].
  void (*weight_row)(const PackedMatrix& weight, int64_t row, float* out);
};

namespace generic {
const LinearKernels& linear_kernels();
}
namespace avx2 {
const LinearKernels& linear_kernels();
}
namespace avx512 {
const LinearKernels& linear_kernels();
}
namespace avx512_bf16 {
// For bf16 activations and bf16 weights only.
const LinearKernels& linear_kernels();
// Whether vdpbf16ps adds as csrc/cpu/bf16_pairs.h says, tried out on this CPU.
bool adds_in_order();
}  // namespace avx512_bf16

}  // namespace bitlens
