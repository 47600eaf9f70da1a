// How each storage format is read from its panel, two vectors (32 outputs) for one word at a time.
//
// A panel holds 32 outputs for all k:
//   F32       [k][32] float
//   F16       [k][32] fp16
//   BF16      a header (csrc/cpu/bf16_pairs.h), [k / 2][32] pairs of k, an even number of rows
//   Q8_0      per 32 k: [32] fp16 scale, [32 k][32] int8
//   Q4_0      per 32 k: [32] fp16 scale, [4][32] uint32 of eight codes (k ascending from the low
//   bits) Q4_1      per 32 k: [32] fp16 scale, [32] fp16 minimum, [4][32] uint32 as in Q4_0
#pragma once

#include "../bf16_pairs.h"
#include "../simd.h"
#include "../types.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

// What a panel's reader gives for one word, outputs 0..15 and 16..31 of the panel.
template <typename Lanes>
struct Columns {
  Lanes lo, hi;
};

// A word is one k: weights are widened to fp32 as they are read.
struct OneK {
  using Word = float;
  using Lanes = f32x16;
  static constexpr int64_t kPerWord = 1;
  static constexpr int64_t kHeaderBytes = 0;
  static constexpr int64_t kWholeK = 1;   // panels hold multiples of so many k
  static constexpr int64_t kStepK = 1;    // and are read so many at a time
  static constexpr bool kAnyK = true;     // or whole blocks of 32
  static constexpr int kHeldVectors = 0;  // from one word to the next
  static inline Lanes load_lanes(const Word* p) { return load(p); }
  static inline f32x16 multiply_add(Word x, Lanes w, f32x16 sum) { return fma(splat(x), w, sum); }
};
using Pair = Columns<f32x16>;

// Each reader: set base, then seek(word) before get<J>, which reads word + J. seek takes multiples
// of 2; block formats keep a block's scales from its first k on, so they seek in ascending steps
// of 8.
struct F32Panel : OneK {
  static constexpr int64_t kBytesPerWord = 128;
  const uint8_t* base;
  const float* at;
  inline void seek(int64_t k) { at = reinterpret_cast<const float*>(base) + k * 32; }
  template <int J>
  inline Pair get() const {
    return {load(at + J * 32), load(at + J * 32 + 16)};
  }
};

struct F16Panel : OneK {
  static constexpr int64_t kBytesPerWord = 64;
  const uint8_t* base;
  const uint16_t* at;
  inline void seek(int64_t k) { at = reinterpret_cast<const uint16_t*>(base) + k * 32; }
  template <int J>
  inline Pair get() const {
    return {load_f16(at + J * 32), load_f16(at + J * 32 + 16)};
  }
};

struct Bf16Panel : OneK {
  static constexpr int64_t kHeaderBytes = kPairHeaderBytes;
  static constexpr int64_t kWholeK = kPairWholeK;
  static constexpr int64_t kBytesPerWord = 64;
  const uint8_t* base;
  const uint8_t* at;
  inline void seek(int64_t k) { at = base + kHeaderBytes + k * 64; }
  template <int J>
  inline Pair get() const {
    return {widen<J>(load_int(at + J / 2 * 128)), widen<J>(load_int(at + J / 2 * 128 + 64))};
  }
  template <int J>
  static inline f32x16 widen(i32x16 pairs) {
    return from_bits(J % 2 == 0 ? pairs & splat_int(-65536) : shift_left<16>(pairs));
  }
};

struct Q8Panel : OneK {
  static constexpr int kHeldVectors = 2;
  static constexpr bool kAnyK = false;
  static constexpr int64_t kBlockBytes = 64 + 32 * 32;
  static constexpr int64_t kBytesPerWord = kBlockBytes / kQuantBlock;
  const uint8_t* base;
  const int8_t* at;
  f32x16 scale[2];
  inline void seek(int64_t k) {
    const uint8_t* block = base + k / kQuantBlock * kBlockBytes;
    if (k % kQuantBlock == 0) {
      scale[0] = load_f16(reinterpret_cast<const uint16_t*>(block));
      scale[1] = load_f16(reinterpret_cast<const uint16_t*>(block) + 16);
    }
    at = reinterpret_cast<const int8_t*>(block + 64) + k % kQuantBlock * 32;
  }
  template <int J>
  inline Pair get() const {
    return {scale[0] * load_int8(at + J * 32), scale[1] * load_int8(at + J * 32 + 16)};
  }
};

template <bool kHasMinimum>
struct Q4Panel : OneK {
  static constexpr int kHeldVectors = kHasMinimum ? 4 : 2;
  static constexpr bool kAnyK = false;
  static constexpr int64_t kHeader = kHasMinimum ? 128 : 64;
  static constexpr int64_t kBlockBytes = kHeader + 4 * 128;
  static constexpr int64_t kBytesPerWord = kBlockBytes / kQuantBlock;
  const uint8_t* base;
  const uint8_t* codes;
  f32x16 scale[2], minimum[2];
  inline void seek(int64_t k) {
    const uint8_t* block = base + k / kQuantBlock * kBlockBytes;
    if (k % kQuantBlock == 0) {
      const uint16_t* header = reinterpret_cast<const uint16_t*>(block);
      for (int half = 0; half < 2; ++half) {
        scale[half] = load_f16(header + 16 * half);
        if constexpr (kHasMinimum) minimum[half] = load_f16(header + 32 + 16 * half);
      }
    }
    codes = block + kHeader + k % kQuantBlock / 8 * 128;
  }
  template <int J>
  inline Pair get() const {
    if constexpr (kHasMinimum)
      return {fma(scale[0], nibble<J, 0>(codes), minimum[0]),
              fma(scale[1], nibble<J, 0>(codes + 64), minimum[1])};
    else
      return {scale[0] * nibble<J, 8>(codes), scale[1] * nibble<J, 8>(codes + 64)};
  }
};

// Words of k as activations and panels are met, the last step whole.
template <typename Panel>
inline int64_t words_of(int64_t k) {
  return (k + Panel::kStepK - 1) / Panel::kStepK * (Panel::kStepK / Panel::kPerWord);
}

template <typename Panel>
inline int64_t panel_bytes(int64_t k) {
  const int64_t stored = (k + Panel::kWholeK - 1) / Panel::kWholeK * Panel::kWholeK;
  return Panel::kHeaderBytes + stored / Panel::kPerWord * Panel::kBytesPerWord;
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
