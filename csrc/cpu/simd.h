// One vector type of 16 fp32 lanes, the same operations on every instruction set.
// Each file under csrc/cpu/isa is compiled once per instruction set; BITLENS_ISA_NS keeps the
// copies apart, so no AVX code can be linked into a baseline function of the same name.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(BITLENS_ISA_AVX512_BF16)
#define BITLENS_ISA_AVX512
#define BITLENS_ISA_NS avx512_bf16
#elif defined(BITLENS_ISA_AMX)
#if !defined(BITLENS_MODEL_TILE_UNIT)  // the model of tiles runs on any CPU
#define BITLENS_ISA_AVX512
#endif
#define BITLENS_ISA_NS amx
#elif defined(BITLENS_ISA_AVX512)
#define BITLENS_ISA_NS avx512
#elif defined(BITLENS_ISA_AVX2)
#define BITLENS_ISA_NS avx2
#elif defined(BITLENS_ISA_GENERIC)
#define BITLENS_ISA_NS generic
#else
#error "compile with -DBITLENS_ISA_ and GENERIC, AVX2, AVX512, AVX512_BF16 or AMX"
#endif

#if defined(BITLENS_ISA_AVX512)
#include "simd_avx512.h"
#elif defined(BITLENS_ISA_AVX2)
#include "simd_avx2.h"
#else
#include "simd_generic.h"
#endif

namespace bitlens::BITLENS_ISA_NS {
namespace {

#if !defined(BITLENS_ISA_AVX512)
// The first n < 16 lanes, the others being `rest`.
inline f32x16 load_part(const float* p, int n, float rest) {
  alignas(64) float lane[16];
  for (int i = n; i < 16; ++i) lane[i] = rest;
  std::memcpy(lane, p, static_cast<size_t>(n) * sizeof(float));
  return load(lane);
}

inline f32x16 load_part(const uint16_t* bf16, int n) {
  alignas(32) uint16_t lane[16] = {};
  std::memcpy(lane, bf16, static_cast<size_t>(n) * sizeof(uint16_t));
  return load_bf16(lane);
}

inline void store_part(float* p, f32x16 v, int n) {
  alignas(64) float lane[16];
  store(lane, v);
  std::memcpy(p, lane, static_cast<size_t>(n) * sizeof(float));
}

inline void store_part(uint16_t* bf16, f32x16 v, int n) {
  alignas(32) uint16_t lane[16];
  store_bf16(lane, v);
  std::memcpy(bf16, lane, static_cast<size_t>(n) * sizeof(uint16_t));
}
#endif

// Loads n <= 16 values and fills the rest with zeros.
inline f32x16 load_n(const float* p, int n) { return n >= 16 ? load(p) : load_part(p, n, 0.0f); }
inline f32x16 load_n(const uint16_t* bf16, int n) {
  return n >= 16 ? load_bf16(bf16) : load_part(bf16, n);
}

inline void store_n(float* p, f32x16 v, int n) { n >= 16 ? store(p, v) : store_part(p, v, n); }
inline void store_n(uint16_t* bf16, f32x16 v, int n) {
  n >= 16 ? store_bf16(bf16, v) : store_part(bf16, v, n);
}

// Overloads so that a kernel can be written once for fp32 and bf16 activations.
inline f32x16 load_act(const float* p) { return load(p); }
inline f32x16 load_act(const uint16_t* p) { return load_bf16(p); }
inline void store_act(float* p, f32x16 v) { store(p, v); }
inline void store_act(uint16_t* p, f32x16 v) { store_bf16(p, v); }

// What a store as T and a load would make of it.
template <typename T>
inline f32x16 rounded(f32x16 v) {
  alignas(64) T lane[16];
  store_act(lane, v);
  return load_act(lane);
}
template <>
inline f32x16 rounded<float>(f32x16 v) {
  return v;
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
