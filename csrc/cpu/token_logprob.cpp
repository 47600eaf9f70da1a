#include "token_logprob.h"

#include <limits>

#include "../spec/token_logprob.h"
#include "kernels.h"
#include "row_ranges.h"
#include "scratch.h"

namespace bitlens {
namespace {

// The sum of the weights of a prepared row, by the sampler's own scan with nothing to find.
uint64_t mass_of(const float* x, int64_t n, float x_max) {
  const Slice slice = {x, n, 0, x_max, 1};
  int32_t found[16];
  NoiseScan scan = {slice, {}, std::numeric_limits<float>::infinity(), 0.0f, true, {0, 0}, found,
                    16,    0};
  kernels().sampling.scan_noise(scan, 0);
  return scan.mass.support;
}

}  // namespace

void token_logprob(const float* logits, int64_t rows, int64_t n, const int64_t* ids,
                   float temperature, float* out, float* x_max, float* z) {
  const float t = spec::temperature_of(temperature);
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    thread_local Scratch scratch;
    float* x = scratch.floats(n);
    for (int64_t row = begin; row < end; ++row) {
      const Summary summary = kernels().sampling.prepare(logits + row * n, LogitType::F32, n, t, x);
      x_max[row] = summary.max;
      if (summary.bad || summary.max == -std::numeric_limits<float>::infinity()) {
        out[row] = z[row] = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      const uint64_t total = mass_of(x, n, summary.max);
      const float chosen = spec::x_of_order_bits(spec::order_bits(x[ids[row]]));
      out[row] = spec::logprob(chosen, summary.max, total);
      z[row] = spec::partition_of(total);
    }
  });
}

void token_logprob_backward(const float* dlogprob, const float* logits, int64_t rows, int64_t n,
                            const int64_t* ids, float temperature, const float* x_max,
                            const float* z, float* dlogits) {
  const float t = spec::temperature_of(temperature);
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      kernels().training.logprob_backward(logits + row * n, n, ids[row], t, x_max[row], z[row],
                                          dlogprob[row], dlogits + row * n);
  });
}

}  // namespace bitlens
