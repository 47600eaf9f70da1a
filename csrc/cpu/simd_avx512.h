#pragma once

#include <immintrin.h>

namespace bitlens::BITLENS_ISA_NS {
namespace {

struct f32x16 {
  __m512 v;
};
struct i32x16 {
  __m512i v;
};

inline f32x16 zero() { return {_mm512_setzero_ps()}; }
inline f32x16 splat(float x) { return {_mm512_set1_ps(x)}; }
inline i32x16 splat_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }

inline f32x16 operator+(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline f32x16 operator-(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline f32x16 operator*(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline f32x16 operator/(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
// fma(a, b, c) = a * b + c, rounded once.
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline f32x16 sqrt(f32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
// a > b ? a : b and a < b ? a : b, so a NaN in b passes through.
inline f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline f32x16 negate(f32x16 a) {
  return {_mm512_castsi512_ps(
      _mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(INT32_MIN)))};
}

// a < b ? x : y
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}

inline i32x16 bits(f32x16 a) { return {_mm512_castps_si512(a.v)}; }
inline f32x16 from_bits(i32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline i32x16 operator+(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline i32x16 operator-(i32x16 a, i32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
template <int N>
inline i32x16 shift_left(i32x16 a) {
  return {_mm512_slli_epi32(a.v, N)};
}
template <int N>
inline i32x16 shift_right_signed(i32x16 a) {
  return {_mm512_srai_epi32(a.v, N)};
}

// The fixed tree of docs/numerics.md: 16 -> 8 -> 4 -> 2 -> 1.
inline float reduce_add_tree(f32x16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float reduce_max(f32x16 a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline f32x16 load_bf16(const uint16_t* p) {
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

// Round to nearest even; a NaN stays a (quiet) NaN.
inline __m256i round_bf16(f32x16 a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x00400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
  return _mm512_cvtepi32_epi16(chosen);
}
inline void store_bf16(uint16_t* p, f32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), round_bf16(a));
}

// Aligned stores past the caches. Other threads see them after a fence.
inline void stream(float* p, f32x16 a) { _mm512_stream_ps(p, a.v); }
inline void stream(uint16_t* bf16, f32x16 a) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(bf16), round_bf16(a));
}
inline void stream_fence() { _mm_sfence(); }

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
// The first n < 16 lanes, the others being `rest`.
inline f32x16 load_part(const float* p, int n, float rest) {
  return {_mm512_mask_loadu_ps(_mm512_set1_ps(rest), first_lanes(n), p)};
}
inline f32x16 load_part(const uint16_t* bf16, int n) {
  const __m256i half = _mm256_maskz_loadu_epi16(first_lanes(n), bf16);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline void store_part(float* p, f32x16 v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v.v); }
inline void store_part(uint16_t* bf16, f32x16 v, int n) {
  _mm256_mask_storeu_epi16(bf16, first_lanes(n), round_bf16(v));
}

// Eight 4-bit codes a lane, code J in bits 4J..4J+3: code - Offset, exact in fp32.
template <int J, int Offset>
inline f32x16 nibble(const void* codes) {
  const __m512 value =
      _mm512_setr_ps(0 - Offset, 1 - Offset, 2 - Offset, 3 - Offset, 4 - Offset, 5 - Offset,
                     6 - Offset, 7 - Offset, 8 - Offset, 9 - Offset, 10 - Offset, 11 - Offset,
                     12 - Offset, 13 - Offset, 14 - Offset, 15 - Offset);
  __m512i shifted;  // from memory each time: codes held for eight words push sums to the stack
  if constexpr (J == 0)
    shifted = _mm512_loadu_si512(codes);
  else
    asm("vpsrld %2, %1, %0"
        : "=v"(shifted)
        : "m"(*static_cast<const __m512i_u*>(codes)), "i"(4 * J));
  return {_mm512_permutexvar_ps(shifted, value)};
}
inline f32x16 load_int8(const int8_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(raw))};
}
inline i32x16 load_int(const void* p) { return {_mm512_loadu_si512(p)}; }
inline i32x16 operator&(i32x16 a, i32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline i32x16 operator|(i32x16 a, i32x16 b) { return {_mm512_or_si512(a.v, b.v)}; }

inline f32x16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
