// Rotary positions and the cache of keys and values: csrc/spec/rope.h and csrc/spec/stepwise.h. A
// thread a pair of elements that are rotated together.
#include "../spec/rope.h"
#include "../spec/stepwise.h"
#include "library.h"
#include "rows.h"
#include "sequences.h"

namespace bitlens::cuda {
namespace {

// cos and sin of every position, [n_positions, d_head / 2].
struct Rotary {
  const float *cos, *sin;
  int64_t d_head;
  bool stepwise;
};

struct Pair {
  float first, second;
};

// Elements j and j + d_head / 2 of a head, rotated and not yet rounded as they are stored.
template <typename T>
__device__ Pair rotate(const Rotary& rotary, int64_t position, const T* x, int64_t j) {
  const int64_t half = rotary.d_head / 2;
  const float c = rotary.cos[position * half + j], s = rotary.sin[position * half + j];
  const float x1 = load(x + j), x2 = load(x + j + half);
  if (!rotary.stepwise) return {spec::fma32(x1, c, -(x2 * s)), spec::fma32(x2, c, x1 * s)};
  const float rc = rounded(x, c), rs = rounded(x, s);
  return {rounded(x, x1 * rc) + rounded(x, -x2 * rs), rounded(x, x2 * rc) + rounded(x, x1 * rs)};
}

// Rows of heads, with strides in elements.
template <typename T>
__global__ void __launch_bounds__(kElementThreads)
    rope(const T* x, int64_t heads, int64_t x_stride, const int64_t* positions, Rotary rotary,
         int64_t count, T* out, int64_t out_stride) {
  const int64_t half = rotary.d_head / 2;
  for_elements(count, [&](int64_t i) {
    const int64_t j = i % half, head = i / half % heads, row = i / half / heads;
    const Pair y = rotate(rotary, positions[row], x + row * x_stride + head * rotary.d_head, j);
    T* to = out + row * out_stride + head * rotary.d_head;
    store(to + j, y.first);
    store(to + j + half, y.second);
  });
}

template <typename T>
__global__ void __launch_bounds__(kElementThreads)
    kv_write(const T* k, const T* v, int64_t k_stride, int64_t v_stride, Sequences sequences,
             Pages<T> pages, int64_t count) {
  for_elements(count, [&](int64_t i) {
    const int64_t h = i % pages.d_head, head = i / pages.d_head % pages.kv_heads;
    const int64_t row = i / pages.d_head / pages.kv_heads;
    const int64_t b = sequence_of(sequences, row), position = sequences.position(b, row);
    pages.key(b, position, head)[h * kPageKeys] = k[row * k_stride + head * pages.d_head + h];
    pages.value(b, position, head)[h] = v[row * v_stride + head * pages.d_head + h];
  });
}

// Queries, keys and values of a row stand behind one another: its queries are rotated in place, its
// keys on their way to their page.
template <typename T>
__global__ void __launch_bounds__(kElementThreads)
    rope_kv_write(T* qkv, int64_t stride, int64_t heads, Rotary rotary, Sequences sequences,
                  Pages<T> pages, int64_t count) {
  const int64_t half = rotary.d_head / 2, all_heads = heads + 2 * pages.kv_heads;
  for_elements(count, [&](int64_t i) {
    const int64_t j = i % half, head = i / half % all_heads, row = i / half / all_heads;
    const int64_t b = sequence_of(sequences, row), position = sequences.position(b, row);
    T* x = qkv + row * stride + head * rotary.d_head;
    if (head >= heads + pages.kv_heads) {
      T* value = pages.value(b, position, head - heads - pages.kv_heads);
      value[j] = x[j];
      value[j + half] = x[j + half];
      return;
    }
    const Pair y = rotate(rotary, position, x, j);
    if (head < heads) {
      store(x + j, y.first);
      store(x + j + half, y.second);
      return;
    }
    T* key = pages.key(b, position, head - heads);
    store(key + j * kPageKeys, y.first);
    store(key + (j + half) * kPageKeys, y.second);
  });
}

template <typename T>
int launch_rope(const void* x, int64_t rows, int64_t heads, int64_t x_stride,
                const int64_t* positions, const Rotary& rotary, void* out, int64_t out_stride,
                void* stream) {
  const int64_t count = rows * heads * (rotary.d_head / 2);
  return launch(Kernel::ROPE, rope<T>, element_grid(count), kElementThreads, 0, stream,
                static_cast<const T*>(x), heads, x_stride, positions, rotary, count,
                static_cast<T*>(out), out_stride);
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_rope(const void* x, int dtype, int64_t rows, int64_t heads, int64_t d_head,
             int64_t x_stride, const int64_t* positions, const float* cos, const float* sin,
             int stepwise, void* out, int64_t out_stride, void* stream) {
  const Rotary rotary = {cos, sin, d_head, stepwise != 0};
  auto* rotate_rows = dtype == kF32 ? launch_rope<float> : launch_rope<uint16_t>;
  return rotate_rows(x, rows, heads, x_stride, positions, rotary, out, out_stride, stream);
}

int blc_kv_write(const void* k, const void* v, int dtype, int64_t rows, int64_t k_stride,
                 int64_t v_stride, const int64_t* starts, const int64_t* past, int64_t batch,
                 int64_t kv_heads, int64_t d_head, const int32_t* table, int64_t width,
                 void* k_pages, void* v_pages, void* stream) {
  const Sequences sequences = {starts, past, batch};
  const int64_t count = rows * kv_heads * d_head;
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch(Kernel::KV_WRITE, kv_write<T>, element_grid(count), kElementThreads, 0, stream,
                  static_cast<const T*>(k), static_cast<const T*>(v), k_stride, v_stride, sequences,
                  pages_of<T>(kv_heads, d_head, table, width, k_pages, v_pages), count);
  });
}

int blc_rope_kv_write(void* qkv, int dtype, int64_t rows, int64_t stride, int64_t heads,
                      const float* cos, const float* sin, int stepwise, const int64_t* starts,
                      const int64_t* past, int64_t batch, int64_t kv_heads, int64_t d_head,
                      const int32_t* table, int64_t width, void* k_pages, void* v_pages,
                      void* stream) {
  const Sequences sequences = {starts, past, batch};
  const Rotary rotary = {cos, sin, d_head, stepwise != 0};
  const int64_t count = rows * (heads + 2 * kv_heads) * (d_head / 2);
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch(Kernel::ROPE_KV_WRITE, rope_kv_write<T>, element_grid(count), kElementThreads, 0,
                  stream, static_cast<T*>(qkv), stride, heads, rotary, sequences,
                  pages_of<T>(kv_heads, d_head, table, width, k_pages, v_pages), count);
  });
}
