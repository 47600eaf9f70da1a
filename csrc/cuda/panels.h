// Weight panels as csrc/cpu/isa/weight_panels.h lays them out, 32 outputs for all k, read by one
// thread an output: the lanes of a warp read neighbouring words, widened in registers.
#pragma once

#include "../spec/formats.h"
#include "device.h"

namespace bitlens::cuda {

using spec::Format;

constexpr int kPanelColumns = 32;
constexpr int kPairHeader = 64;  // bytes before a bf16 panel's pairs
constexpr int kFour = 4;         // weights that are read together, of neighbouring k

__host__ __device__ inline int64_t panel_bytes(Format format, int64_t k) {
  if (format == Format::kBF16) return kPairHeader + (k + 3) / 4 * 4 * 2 * kPanelColumns;
  return spec::row_bytes(format, k) * kPanelColumns;
}

__device__ inline const uint32_t* words(const uint8_t* p) {
  return reinterpret_cast<const uint32_t*>(p);
}
__device__ inline const uint16_t* halves(const uint8_t* p) {
  return reinterpret_cast<const uint16_t*>(p);
}

// w[j] = weight k + j of a column, for j below `count`; k is a multiple of four.
template <Format kFormat>
struct Reader;

template <>
struct Reader<Format::kF32> {
  static __device__ inline void read(const uint8_t* panel, int column, int64_t k, int count,
                                     float* w) {
    const float* at = reinterpret_cast<const float*>(panel) + k * kPanelColumns + column;
#pragma unroll
    for (int j = 0; j < kFour; ++j) w[j] = j < count ? at[j * kPanelColumns] : 0.0f;
  }
};

template <>
struct Reader<Format::kF16> {
  static __device__ inline void read(const uint8_t* panel, int column, int64_t k, int count,
                                     float* w) {
    const uint16_t* at = halves(panel) + k * kPanelColumns + column;
#pragma unroll
    for (int j = 0; j < kFour; ++j)
      w[j] = j < count ? spec::widen_fp16(at[j * kPanelColumns]) : 0.0f;
  }
};

// Pairs of k: the even one is in the high half.
template <>
struct Reader<Format::kBF16> {
  static __device__ inline void read(const uint8_t* panel, int column, int64_t k, int count,
                                     float* w) {
    const uint32_t* at = words(panel + kPairHeader) + k / 2 * kPanelColumns + column;
#pragma unroll
    for (int j = 0; j < kFour; j += 2) {
      const uint32_t pair = j < count ? at[j / 2 * kPanelColumns] : 0u;
      w[j] = spec::float_of(pair & 0xffff0000u);
      w[j + 1] = spec::float_of(pair << 16);
    }
  }
};

// In blocks of 32 k: 32 scales, for some 32 minima, then the codes.
template <>
struct Reader<Format::kQ8_0> {
  static __device__ inline void read(const uint8_t* panel, int column, int64_t k, int, float* w) {
    const uint8_t* block = panel + k / spec::kBlockWeights * spec::kBytesQ8_0 * kPanelColumns;
    const float d = spec::widen_fp16(halves(block)[column]);
    const int8_t* codes = reinterpret_cast<const int8_t*>(block + 2 * kPanelColumns) +
                          k % spec::kBlockWeights * kPanelColumns + column;
#pragma unroll
    for (int j = 0; j < kFour; ++j) w[j] = d * static_cast<float>(codes[j * kPanelColumns]);
  }
};

// Eight codes to a word, k ascending from its low bits.
__device__ inline uint32_t four_codes(const uint8_t* codes, int column, int64_t k) {
  const int in_block = static_cast<int>(k % spec::kBlockWeights);
  const uint32_t word = words(codes)[in_block / 8 * kPanelColumns + column];
  return word >> (in_block % 8 * 4);
}

template <>
struct Reader<Format::kQ4_0> {
  static __device__ inline void read(const uint8_t* panel, int column, int64_t k, int, float* w) {
    const uint8_t* block = panel + k / spec::kBlockWeights * spec::kBytesQ4_0 * kPanelColumns;
    const float d = spec::widen_fp16(halves(block)[column]);
    const uint32_t codes = four_codes(block + 2 * kPanelColumns, column, k);
#pragma unroll
    for (int j = 0; j < kFour; ++j)
      w[j] = d * static_cast<float>(static_cast<int>(codes >> (4 * j) & 15u) - 8);
  }
};

template <>
struct Reader<Format::kQ4_1> {
  static __device__ inline void read(const uint8_t* panel, int column, int64_t k, int, float* w) {
    const uint8_t* block = panel + k / spec::kBlockWeights * spec::kBytesQ4_1 * kPanelColumns;
    const float d = spec::widen_fp16(halves(block)[column]);
    const float m = spec::widen_fp16(halves(block)[kPanelColumns + column]);
    const uint32_t codes = four_codes(block + 4 * kPanelColumns, column, k);
#pragma unroll
    for (int j = 0; j < kFour; ++j)
      w[j] = spec::fma32(d, static_cast<float>(codes >> (4 * j) & 15u), m);
  }
};

// kernels<Format> chosen by a format that is known when it runs.
template <typename Choose>
auto with_format(int format, Choose choose) {
  switch (static_cast<Format>(format)) {
    case Format::kBF16:
      return choose(Reader<Format::kBF16>());
    case Format::kF16:
      return choose(Reader<Format::kF16>());
    case Format::kQ8_0:
      return choose(Reader<Format::kQ8_0>());
    case Format::kQ4_0:
      return choose(Reader<Format::kQ4_0>());
    case Format::kQ4_1:
      return choose(Reader<Format::kQ4_1>());
    default:
      return choose(Reader<Format::kF32>());
  }
}

}  // namespace bitlens::cuda
