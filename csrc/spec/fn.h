// What every spec header is written in: plain fp32/fp64 arithmetic, an explicit fma, and bit casts.
// g++ needs -ffp-contract=off, nvcc -fmad=false -ftz=false -prec-div=true -prec-sqrt=true.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__FAST_MATH__)
#error "the numerics spec is meaningless under -ffast-math"
#endif

// Internal linkage: code built for one instruction set must not be linked into another.
#if defined(__CUDACC__)
#define BL_FN static inline __host__ __device__
#else
#define BL_FN static inline
#endif

namespace bitlens::spec {

// One rounding; the only place where a product and a sum are rounded together.
BL_FN float fma32(float a, float b, float c) { return fmaf(a, b, c); }
BL_FN double fma64(double a, double b, double c) { return fma(a, b, c); }

// For what is written once for both; in double it is there for tests of derivatives.
BL_FN float fused(float a, float b, float c) { return fma32(a, b, c); }
BL_FN double fused(double a, double b, double c) { return fma64(a, b, c); }

BL_FN uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

BL_FN float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

BL_FN uint64_t bits_of_f64(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

BL_FN double double_of(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

}  // namespace bitlens::spec
