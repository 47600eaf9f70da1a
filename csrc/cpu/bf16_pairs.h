// bf16 numbers two k to a 32-bit word, the even one in its high half. Two kinds of instruction work
// on such words, and both give the order of docs/numerics.md:
//   vdpbf16ps   adds the product of the high halves to a sum and then that of the low halves, one
//               fp32 FMA each. Words of (k, k + 2) make the chain of even k, of (k + 1, k + 3) that
//               of odd k.
//   tdpbf16ps   over 16 words, adds the products of the high halves in one chain from +0, those of
//               the low halves in another, and then both to a sum.
//
// Unlike an FMA they take subnormal inputs for zero and flush subnormal sums. No sum can be
// subnormal where the smallest exponents allow it: a bf16 with biased exponent e is a multiple of
// 2^(e - 134), so products, and sums rounded to fp32, are multiples of 2^(e_x + e_w - 268), which
// is at least the smallest normal number, 2^-126, from e_x + e_w = 142 on.
#pragma once

#include <cstdint>
#include <cstring>

namespace bitlens {

constexpr int64_t kPairHeaderBytes = 64;  // before the pairs, the least exponent: int32
constexpr int32_t kLeastExponentSum = 142;
constexpr int32_t kNoExponent = 255;    // all values are zero
constexpr int32_t kNeverFused = -1000;  // one is subnormal, infinite or NaN
constexpr int64_t kPairWholeK = 4;      // panels hold multiples of so many k
// The weights beyond the last k: -0 times the activation +0 is -0, which moves no sum.
constexpr uint16_t kPairPadding = 0x8000;

// The smallest biased exponent of the values that are not zero. Of internal linkage, so that each
// instruction set has its own.
static inline int32_t least_exponent(const uint16_t* x, int64_t count) {
  uint16_t smallest = 0xffff, largest = 0;  // magnitudes; zero counts as the largest of the former
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t magnitude = x[i] & 0x7fff;
    const uint16_t below = static_cast<uint16_t>(magnitude - 1);
    smallest = below < smallest ? below : smallest;
    largest = magnitude > largest ? magnitude : largest;
  }
  if (largest == 0) return kNoExponent;
  const int32_t exponent = (smallest + 1) >> 7;
  return exponent == 0 || largest >= 0x7f80 ? kNeverFused : exponent;
}

static inline int32_t lesser(int32_t a, int32_t b) { return a < b ? a : b; }

static inline int32_t read_exponent(const void* header) {
  int32_t exponent;
  std::memcpy(&exponent, header, sizeof(exponent));
  return exponent;
}

namespace {
// bf16 bits of either sign and 17 exponents around 1, to try an instruction out with.
struct NumbersToTry {
  uint64_t state = 1;

  uint32_t operator()() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint32_t sign = state >> 63, exponent = 119 + (state >> 40) % 17;
    return sign << 15 | exponent << 7 | static_cast<uint32_t>(state >> 33) % 128;
  }
};
}  // namespace

// The least exponent of rows of activations, into their header.
static inline void put_exponent(void* header, const uint16_t* x, int64_t rows, int64_t k,
                                int64_t stride) {
  int32_t exponent = kNoExponent;
  for (int64_t row = 0; row < rows; ++row)
    exponent = lesser(exponent, least_exponent(x + row * stride, k));
  std::memcpy(header, &exponent, sizeof(exponent));
}

}  // namespace bitlens
