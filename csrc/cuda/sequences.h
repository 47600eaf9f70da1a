// Ragged rows of a batch and the pages of its keys and values, as csrc/cpu/kv_pages.h has them; all
// pointers are the device's.
#pragma once

#include <cstdint>

#include "device.h"

namespace bitlens::cuda {

constexpr int kPageKeys = 64;

// Sequence b owns rows starts[b] .. starts[b + 1], at positions past[b] on.
struct Sequences {
  const int64_t *starts, *past;
  int64_t batch;

  __device__ int64_t rows(int64_t b) const { return starts[b + 1] - starts[b]; }
  __device__ int64_t position(int64_t b, int64_t row) const { return past[b] + (row - starts[b]); }
};

// The sequence that owns a row.
__device__ inline int64_t sequence_of(const Sequences& sequences, int64_t row) {
  int64_t low = 0, high = sequences.batch;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (sequences.starts[middle] <= row ? low : high) = middle;
  }
  return low;
}

// A key page is [kv_heads, d_head, kPageKeys], a value page [kv_heads, kPageKeys, d_head].
template <typename T>
struct Pages {
  int64_t kv_heads, d_head;
  const int32_t* table;  // [batch, width]
  int64_t width;
  T *k, *v;

  // The page of `kv_head` that holds a position, as an offset into k or v.
  __device__ int64_t head_of(int64_t b, int64_t position, int64_t kv_head) const {
    const int64_t page = table[b * width + position / kPageKeys];
    return (page * kv_heads + kv_head) * d_head * kPageKeys;
  }
  __device__ T* key(int64_t b, int64_t position, int64_t kv_head) const {
    return k + head_of(b, position, kv_head) + position % kPageKeys;  // element h at h * kPageKeys
  }
  __device__ T* value(int64_t b, int64_t position, int64_t kv_head) const {
    return v + head_of(b, position, kv_head) + position % kPageKeys * d_head;
  }
};

template <typename T>
Pages<T> pages_of(int64_t kv_heads, int64_t d_head, const int32_t* table, int64_t width, void* k,
                  void* v) {
  return {kv_heads, d_head, table, width, static_cast<T*>(k), static_cast<T*>(v)};
}

}  // namespace bitlens::cuda
