#pragma once

#include "linear_kernels.h"

namespace bitlens {

// Bytes of the panels of an [n, k] matrix; throws std::invalid_argument if the format cannot hold
// k.
int64_t packed_bytes(Format format, int64_t n, int64_t k);

// Bytes of one row of k as `pack` takes it.
int64_t row_bytes(Format format, int64_t k);

// Arranges rows (dense [n, k], or GGUF blocks row after row) into panels.
void pack(Format format, const uint8_t* rows, int64_t n, int64_t k, uint8_t* panels);

// Rows row0 .. row0 + rows of a packed matrix, widened to fp32 [rows, k].
void unpack_rows(const PackedMatrix& weight, int64_t row0, int64_t rows, float* out);

// Several products of the same activations x [m, k]; stride in elements. No output may overlap x:
// threads read it while others write.
void linear(const void* x, DType dtype, int64_t m, int64_t k, int64_t stride,
            const LinearOutput* outputs, int count);

// out[t] = round(weight[tokens[t]] * scale); tokens must be in [0, n).
void embedding(const int64_t* tokens, int64_t count, const PackedMatrix& weight, float scale,
               void* out, DType dtype);

}  // namespace bitlens
