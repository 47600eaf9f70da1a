// Rows of a packed matrix times a scale: csrc/spec/embedding.h.
#include "../spec/embedding.h"
#include "library.h"
#include "panels.h"
#include "rows.h"

namespace bitlens::cuda {
namespace {

// A thread block a token, four weights a thread at a time.
template <typename R, typename T>
__global__ void __launch_bounds__(kRowThreads)
    embedding(const int64_t* tokens, const uint8_t* panels, int64_t panel_bytes, int64_t k,
              float scale, T* out) {
  const int64_t token = tokens[blockIdx.x];
  const uint8_t* panel = panels + token / kPanelColumns * panel_bytes;
  for (int64_t i = threadIdx.x * kFour; i < k; i += kRowThreads * kFour) {
    const int count = static_cast<int>(k - i < kFour ? k - i : kFour);
    float w[kFour];
    R::read(panel, static_cast<int>(token % kPanelColumns), i, count, w);
#pragma unroll
    for (int j = 0; j < kFour; ++j)
      if (j < count) store(out + blockIdx.x * k + i + j, w[j] * scale);
  }
}

template <typename T>
int launch_embedding(const int64_t* tokens, int64_t count, const uint8_t* panels, int format,
                     int64_t k, float scale, void* out, void* stream) {
  auto* kernel = with_format(format, [](auto reader) { return embedding<decltype(reader), T>; });
  return launch(Kernel::EMBEDDING, kernel, dim3(static_cast<unsigned>(count)), kRowThreads, 0,
                stream, tokens, panels, panel_bytes(static_cast<Format>(format), k), k, scale,
                static_cast<T*>(out));
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_embedding(const int64_t* tokens, int64_t count, const uint8_t* panels, int format,
                  int64_t k, float scale, void* out, int dtype, void* stream) {
  auto* embed = dtype == kF32 ? launch_embedding<float> : launch_embedding<uint16_t>;
  return embed(tokens, count, panels, format, k, scale, out, stream);
}
