#pragma once

#include "../spec/formats.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

struct f32x16 {
  float a[16];
};
struct i32x16 {
  int32_t a[16];
};

#define BITLENS_EACH_LANE(T, EXPR)              \
  T r;                                          \
  for (int i = 0; i < 16; ++i) r.a[i] = (EXPR); \
  return r

inline f32x16 splat(float x) { BITLENS_EACH_LANE(f32x16, x); }
inline i32x16 splat_int(int32_t x) { BITLENS_EACH_LANE(i32x16, x); }
inline f32x16 zero() { return splat(0.0f); }
inline f32x16 load(const float* p) { BITLENS_EACH_LANE(f32x16, p[i]); }
inline void store(float* p, f32x16 v) { std::memcpy(p, v.a, sizeof(v.a)); }

inline f32x16 operator+(f32x16 x, f32x16 y) { BITLENS_EACH_LANE(f32x16, x.a[i] + y.a[i]); }
inline f32x16 operator-(f32x16 x, f32x16 y) { BITLENS_EACH_LANE(f32x16, x.a[i] - y.a[i]); }
inline f32x16 operator*(f32x16 x, f32x16 y) { BITLENS_EACH_LANE(f32x16, x.a[i] * y.a[i]); }
inline f32x16 operator/(f32x16 x, f32x16 y) { BITLENS_EACH_LANE(f32x16, x.a[i] / y.a[i]); }
// fma(a, b, c) = a * b + c, rounded once.
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
  BITLENS_EACH_LANE(f32x16, __builtin_fmaf(x.a[i], y.a[i], z.a[i]));
}
inline f32x16 sqrt(f32x16 x) { BITLENS_EACH_LANE(f32x16, __builtin_sqrtf(x.a[i])); }
// a > b ? a : b and a < b ? a : b, so a NaN in b passes through.
inline f32x16 max(f32x16 x, f32x16 y) {
  BITLENS_EACH_LANE(f32x16, x.a[i] > y.a[i] ? x.a[i] : y.a[i]);
}
inline f32x16 min(f32x16 x, f32x16 y) {
  BITLENS_EACH_LANE(f32x16, x.a[i] < y.a[i] ? x.a[i] : y.a[i]);
}
inline f32x16 negate(f32x16 x) { BITLENS_EACH_LANE(f32x16, -x.a[i]); }

// a < b ? x : y
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
  BITLENS_EACH_LANE(f32x16, a.a[i] < b.a[i] ? x.a[i] : y.a[i]);
}

inline i32x16 bits(f32x16 v) {
  i32x16 r;
  std::memcpy(r.a, v.a, sizeof(r.a));
  return r;
}
inline f32x16 from_bits(i32x16 v) {
  f32x16 r;
  std::memcpy(r.a, v.a, sizeof(r.a));
  return r;
}
inline int32_t wrap(uint32_t x) { return static_cast<int32_t>(x); }
inline uint32_t word(int32_t x) { return static_cast<uint32_t>(x); }
inline i32x16 operator+(i32x16 x, i32x16 y) {
  BITLENS_EACH_LANE(i32x16, wrap(word(x.a[i]) + word(y.a[i])));
}
inline i32x16 operator-(i32x16 x, i32x16 y) {
  BITLENS_EACH_LANE(i32x16, wrap(word(x.a[i]) - word(y.a[i])));
}
template <int N>
inline i32x16 shift_left(i32x16 x) {
  BITLENS_EACH_LANE(i32x16, wrap(word(x.a[i]) << N));
}
template <int N>
inline i32x16 shift_right_signed(i32x16 x) {
  BITLENS_EACH_LANE(i32x16, x.a[i] >> N);
}

inline f32x16 load_int8(const int8_t* p) { BITLENS_EACH_LANE(f32x16, static_cast<float>(p[i])); }
inline i32x16 load_int(const void* p) {
  i32x16 r;
  std::memcpy(r.a, p, sizeof(r.a));
  return r;
}
// Eight 4-bit codes a lane, code J in bits 4J..4J+3: code - Offset, exact in fp32.
template <int J, int Offset>
inline f32x16 nibble(const void* codes) {
  const i32x16 x = load_int(codes);
  BITLENS_EACH_LANE(f32x16, static_cast<float>(((x.a[i] >> (4 * J)) & 15) - Offset));
}
inline i32x16 operator&(i32x16 x, i32x16 y) { BITLENS_EACH_LANE(i32x16, x.a[i] & y.a[i]); }
inline i32x16 operator|(i32x16 x, i32x16 y) { BITLENS_EACH_LANE(i32x16, x.a[i] | y.a[i]); }

inline f32x16 load_bf16(const uint16_t* p) { BITLENS_EACH_LANE(f32x16, spec::widen_bf16(p[i])); }
inline void store_bf16(uint16_t* p, f32x16 v) {
  for (int i = 0; i < 16; ++i) p[i] = spec::round_bf16(v.a[i]);
}
inline void stream(float* p, f32x16 v) { store(p, v); }
inline void stream(uint16_t* bf16, f32x16 v) { store_bf16(bf16, v); }
inline void stream_fence() {}
inline f32x16 load_f16(const uint16_t* p) { BITLENS_EACH_LANE(f32x16, spec::widen_fp16(p[i])); }

#undef BITLENS_EACH_LANE

// The fixed tree of docs/numerics.md: 16 -> 8 -> 4 -> 2 -> 1.
inline float reduce_add_tree(f32x16 v) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) v.a[i] = v.a[i] + v.a[i + width];
  return v.a[0];
}
inline float reduce_max(f32x16 v) {
  float best = v.a[0];
  for (int i = 1; i < 16; ++i) best = v.a[i] > best ? v.a[i] : best;
  return best;
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
