// The tile unit of AMX in C++, for CPUs without one: eight tiles a thread, and tdpbf16ps as Intel
// documents it (Instruction Set Reference, TDPBF16PS). It stops the program where a real one would
// fault, and counts its products.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bitlens::tile_unit {

inline std::atomic<int64_t> products{0};

struct Tile {
  uint32_t rows[16][16];
};

struct Unit {
  bool configured = false;
  Tile tiles[8];
};

inline Unit& unit() {
  thread_local Unit state;
  return state;
}

inline Tile& tile(int index) {
  if (!unit().configured || index < 0 || index > 7) {
    std::fprintf(stderr, "tile %d is used without a configuration\n", index);
    std::abort();
  }
  return unit().tiles[index];
}

inline float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

// The bf16 number in the high half, or of the low half shifted up.
inline float number(uint32_t bits) {
  float x;
  const uint32_t high = bits & 0xffff0000u;
  std::memcpy(&x, &high, sizeof(x));
  return flushed(x);
}

inline void load_configuration(const void* memory) {
  const uint8_t* bytes = static_cast<const uint8_t*>(memory);
  bool whole = bytes[0] == 1 && bytes[1] == 0;
  for (int i = 0; i < 8; ++i) whole = whole && bytes[16 + 2 * i] == 64 && bytes[48 + i] == 16;
  if (!whole) {
    std::fprintf(stderr, "not a configuration of eight whole tiles\n");
    std::abort();
  }
  unit() = {};
  unit().configured = true;
}

inline void load(int index, const void* memory, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(tile(index).rows[row], static_cast<const uint8_t*>(memory) + row * stride, 64);
}

inline void store(int index, void* memory, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(static_cast<uint8_t*>(memory) + row * stride, tile(index).rows[row], 64);
}

inline void multiply_add(int c, int a, int b) {
  ++products;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 16; ++column) {
      float low = 0.0f, high = 0.0f, sum;
      for (int k = 0; k < 16; ++k) {
        const uint32_t x = tile(a).rows[row][k], w = tile(b).rows[k][column];
        low = flushed(std::fma(number(x << 16), number(w << 16), low));
        high = flushed(std::fma(number(x), number(w), high));
      }
      std::memcpy(&sum, &tile(c).rows[row][column], sizeof(sum));
      sum = flushed(flushed(sum) + flushed(low + high));
      std::memcpy(&tile(c).rows[row][column], &sum, sizeof(sum));
    }
  }
}

}  // namespace bitlens::tile_unit

#define _tile_loadconfig(memory) bitlens::tile_unit::load_configuration(memory)
#define _tile_release() bitlens::tile_unit::unit().configured = false
#define _tile_zero(index) bitlens::tile_unit::tile(index) = {}
#define _tile_loadd(index, memory, stride) bitlens::tile_unit::load(index, memory, stride)
#define _tile_stored(index, memory, stride) bitlens::tile_unit::store(index, memory, stride)
#define _tile_dpbf16ps(c, a, b) bitlens::tile_unit::multiply_add(c, a, b)
