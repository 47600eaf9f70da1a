// The eight tile registers of AMX. Tests compile a model of them in their place
// (tests/csrc/tile_unit), which counts and checks what real tiles do in silence.
#pragma once

#include <cstdint>

#if defined(BITLENS_MODEL_TILE_UNIT)
#include "tile_unit_model.h"
#else
#include <immintrin.h>
#endif

namespace bitlens::amx {
namespace {

constexpr int kTileRowsEach = 16;  // rows of a tile, and 32-bit words of its rows

// GCC's tile intrinsics do not say that they read memory, so a compiler might leave out or put off
// what is written for them: no more of `memory` is outstanding after this.
inline void settle(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

// Sixteen rows of 64 bytes in every tile while it lives; other users of the unit in this thread
// load a configuration of their own.
class Tiles {
 public:
  Tiles() {
    alignas(64) uint8_t configuration[64] = {};
    configuration[0] = 1;  // palette
    for (int tile = 0; tile < 8; ++tile) {
      configuration[16 + 2 * tile] = 4 * kTileRowsEach;  // bytes of a row
      configuration[48 + tile] = kTileRowsEach;
    }
    settle(configuration);
    _tile_loadconfig(configuration);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

}  // namespace
}  // namespace bitlens::amx
