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
  int64_t direct_rows;  // up to this many rows, `direct` is faster than `tiles`

  // Rows of activations as the kernels below read them, and the 32-bit words that they take.
  int64_t (*packed_words)(int64_t rows, int64_t k);
  void (*pack_rows)(const void* x, DType dtype, int64_t rows, int64_t k, int64_t stride,
                    uint32_t* words);

  // Few rows: m of them packed together, `count` panels from `panel` on. Null where there are only
  // tiles.
  void (*direct)(const uint32_t* words, int64_t m, const LinearOutput& to, int64_t panel,
                 int64_t count);
  // Many rows: one panel. scratch holds one widened leaf of it; totals [rows][32] the sums so far,
  // started where k0 is 0 and finished into the output where k1 is the whole depth.
  void (*tiles)(const RowTiles& rows, const LinearOutput& to, int64_t panel, float* scratch,
                float* totals);
  // Rows of the weight matrix itself, widened to fp32: out [k].
  void (*weight_row)(const PackedMatrix& weight, int64_t row, float* out);
};

// For activations of one dtype, which decides the order, and weights of any format.
namespace generic {
const LinearKernels& linear_kernels(Order order);
}
namespace avx2 {
const LinearKernels& linear_kernels(Order order);
}
namespace avx512 {
const LinearKernels& linear_kernels(Order order);
}

// For bf16 activations and bf16 weights only. `adds_in_order`: whether the instruction adds as
// csrc/cpu/bf16_pairs.h says, tried out on this CPU.
namespace avx512_bf16 {
const LinearKernels& linear_kernels();
bool adds_in_order();
}  // namespace avx512_bf16
namespace amx {
const LinearKernels& linear_kernels();
bool adds_in_order();
// Asks the kernel for the use of tiles; false where there are none or it refuses.
bool request_tiles();
}  // namespace amx

}  // namespace bitlens
