// linear of many rows: 128 rows by 64 outputs a thread block, 8 by 4 a thread (tile.h).
#include "library.h"
#include "tile.h"

namespace bitlens::cuda {
namespace {

using ManyRows = Tile<8>;

template <typename R, spec::Order kOrder>
__global__ void __launch_bounds__(kTileThreads) linear_tiled(Linear op) {
  BL_SHARED(float, x, ManyRows::x_floats);
  BL_SHARED(float, w, ManyRows::w_floats);
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * ManyRows::rows;
  const int64_t column0 = static_cast<int64_t>(blockIdx.x) * kTileColumns;
  ManyRows::Sums total = {};
  ManyRows::product<R, kOrder>(op, row0, blockIdx.x, x, w, total);
  ManyRows::for_outputs(total, [&](int row, int column, float sum) {
    if (row0 + row < op.m && column0 + column < op.n) finish(op, row0 + row, column0 + column, sum);
  });
}

}  // namespace

int launch_tiled(int format, const Linear& op, void* stream) {
  auto* kernel = with_order(op, [&](auto order) {
    return with_format(
        format, [](auto reader) { return linear_tiled<decltype(reader), decltype(order)::order>; });
  });
  const dim3 grid(static_cast<unsigned>((op.n + kTileColumns - 1) / kTileColumns),
                  static_cast<unsigned>((op.m + ManyRows::rows - 1) / ManyRows::rows));
  return launch(Kernel::LINEAR_TILED, kernel, grid, kTileThreads, 0, stream, op);
}

}  // namespace bitlens::cuda

using namespace bitlens::cuda;

// Rows up to which reading weights takes longer than multiplying by them.
constexpr int64_t kFewRows = 8;

int blc_linear(const void* x, int x_dtype, int64_t m, int64_t k, int64_t x_stride,
               const uint8_t* panels, int format, int64_t n, const float* bias, void* out,
               int out_dtype, int64_t out_stride, void* stream) {
  const Linear op = {
      x, x_dtype, m,   k,         x_stride,  panels, panel_bytes(static_cast<Format>(format), k),
      n, bias,    out, out_dtype, out_stride};
  return m <= kFewRows ? launch_few_rows(format, op, stream) : launch_tiled(format, op, stream);
}
