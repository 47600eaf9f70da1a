#pragma once

#include <cstddef>
#include <cstdint>

namespace bitlens {

// How activations are stored; all arithmetic is fp32.
enum class DType : int { F32 = 0, BF16 = 1 };

// How a weight matrix is stored. The codes are those of model/weights/checkpoint.py.
enum class Format : int { F32 = 0, BF16 = 1, F16 = 2, Q8_0 = 3, Q4_0 = 4, Q4_1 = 5 };

constexpr int64_t kLeaf = 256;         // k per leaf (docs/numerics.md, linear)
constexpr int64_t kPairBlock = 32;     // k per two chains of bf16 activations (same place)
constexpr int64_t kPanelColumns = 32;  // outputs per weight panel
constexpr int64_t kQuantBlock = 32;    // k per scale in Q8_0, Q4_0 and Q4_1
constexpr int64_t kPageKeys = 64;      // keys per page of the KV cache

// How a leaf is summed: fp32 activations in one chain, bf16 ones in blocks of two.
enum class Order { kChain, kPairs };

inline size_t dtype_bytes(DType dtype) { return dtype == DType::F32 ? 4 : 2; }

}  // namespace bitlens
