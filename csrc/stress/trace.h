// Random inputs and what a run on them produced.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/types.h"

namespace bitlens {

class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed) {}
  uint32_t bits() { return state_ = state_ * 1664525u + 1013904223u; }
  float value() { return static_cast<float>(static_cast<int32_t>(bits()) >> 8) * 0x1p-23f; }

  std::vector<float> floats(int64_t count) {
    std::vector<float> x(static_cast<size_t>(count));
    for (float& v : x) v = value();
    return x;
  }

  // The same numbers as activations of either dtype, truncated to bf16.
  std::vector<uint8_t> activations(int64_t count, DType dtype) {
    const size_t size = dtype_bytes(dtype);
    std::vector<uint8_t> x(static_cast<size_t>(count) * size);
    for (int64_t i = 0; i < count; ++i) {
      const float v = value();
      std::memcpy(&x[static_cast<size_t>(i) * size],
                  reinterpret_cast<const uint8_t*>(&v) + 4 - size, size);
    }
    return x;
  }

 private:
  uint32_t state_;
};

// What a run produced, so that runs can be compared.
struct Trace {
  std::vector<uint8_t> bytes;
  bool same_paths = true;  // where two ways must give the same, they do

  template <typename T>
  void add(const std::vector<T>& x) {
    const auto* p = reinterpret_cast<const uint8_t*>(x.data());
    bytes.insert(bytes.end(), p, p + x.size() * sizeof(T));
  }
};

}  // namespace bitlens
