// Gradients of keys and values from a block of queries: for each key the sum of weight * x over
// pairs (head of the group, query), heads ascending, then queries, in the order of
// csrc/spec/linear.h for fp32 activations (docs/numerics.md, Gradients). A thread block has 64 keys
// by 64 elements of a head, a thread 4 by 4, 16 pairs at a time.
#include "../spec/linear.h"
#include "library.h"
#include "rows.h"

namespace bitlens::cuda {
namespace {

constexpr int kKeyThreads = 256;
constexpr int kTile = 64, kPad = kTile + 4, kEach = 4, kPairs = 16;
constexpr int kAcross = kTile / kEach;  // threads along the elements
static_assert(spec::kLeaf % kPairs == 0 && kAcross * kAcross == kKeyThreads);

// weight [queries, heads, keys], x [queries, heads, d_head], out [keys, kv_heads, d_head].
template <typename T>
struct KeySums {
  const float* weight;
  const T* x;
  int64_t queries, heads, kv_heads, keys, d_head;
  float* out;

  __device__ int64_t group() const { return heads / kv_heads; }
  __device__ int64_t pairs() const { return group() * queries; }
  // The row of weight and x, of all queries and heads, that a pair is.
  __device__ int64_t row(int64_t kv_head, int64_t pair) const {
    return pair % queries * heads + kv_head * group() + pair / queries;
  }
};

using Sums = float[kEach][kEach];

// Pairs from pair0 on: their weights of the tile's keys and their elements of the tile's.
template <typename T>
__device__ void fetch(const KeySums<T>& op, int64_t kv_head, int64_t pair0, float* w, float* x) {
  const int64_t key0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t h0 = static_cast<int64_t>(blockIdx.y) * kTile;
  for (int i = static_cast<int>(threadIdx.x); i < kPairs * kTile; i += kKeyThreads) {
    const int64_t pair = pair0 + i / kTile, key = key0 + i % kTile, h = h0 + i % kTile;
    const int at = i / kTile * kPad + i % kTile;
    const bool there = pair < op.pairs();
    const int64_t row = there ? op.row(kv_head, pair) : 0;
    w[at] = there && key < op.keys ? op.weight[row * op.keys + key] : 0.0f;
    x[at] = there && h < op.d_head ? load(op.x + row * op.d_head + h) : 0.0f;
  }
}

__device__ inline void multiply(const float* w, const float* x, int depth, Sums& leaf) {
  const int t = static_cast<int>(threadIdx.x), i0 = t / kAcross * kEach, j0 = t % kAcross * kEach;
  for (int p = 0; p < depth; ++p) {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < kEach; ++j)
        leaf[i][j] = spec::fma32(w[p * kPad + i0 + i], x[p * kPad + j0 + j], leaf[i][j]);
  }
}

__device__ inline void add_leaf(bool first, Sums& leaf, Sums& total) {
#pragma unroll
  for (int i = 0; i < kEach; ++i)
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      total[i][j] = first ? leaf[i][j] : total[i][j] + leaf[i][j];
      leaf[i][j] = 0.0f;
    }
}

// grid: tiles of keys, tiles of a head, kv_heads.
template <typename T>
__global__ void __launch_bounds__(kKeyThreads) attention_key_sums(KeySums<T> op) {
  BL_SHARED(float, w, kPairs* kPad);
  BL_SHARED(float, x, kPairs* kPad);
  const int64_t kv_head = blockIdx.z, pairs = op.pairs();
  Sums leaf = {}, total = {};
  for (int64_t pair0 = 0; pair0 < pairs; pair0 += kPairs) {
    __syncthreads();
    fetch(op, kv_head, pair0, w, x);
    __syncthreads();
    const int64_t left = pairs - pair0;
    multiply(w, x, static_cast<int>(left < kPairs ? left : kPairs), leaf);
    if ((pair0 + kPairs) % spec::kLeaf == 0 || left <= kPairs)
      add_leaf(pair0 < spec::kLeaf, leaf, total);
  }
  const int t = static_cast<int>(threadIdx.x);
  const int64_t key = static_cast<int64_t>(blockIdx.x) * kTile + t / kAcross * kEach;
  const int64_t h = static_cast<int64_t>(blockIdx.y) * kTile + t % kAcross * kEach;
  for (int i = 0; i < kEach; ++i)
    for (int j = 0; j < kEach; ++j)
      if (key + i < op.keys && h + j < op.d_head)
        op.out[((key + i) * op.kv_heads + kv_head) * op.d_head + h + j] = total[i][j];
}

unsigned tiles_of(int64_t n) { return static_cast<unsigned>((n + kTile - 1) / kTile); }

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_attention_key_sums(const float* weight, const void* x, int dtype, int64_t queries,
                           int64_t heads, int64_t kv_heads, int64_t keys, int64_t d_head,
                           float* out, void* stream) {
  const dim3 grid(tiles_of(keys), tiles_of(d_head), static_cast<unsigned>(kv_heads));
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    const KeySums<T> op = {weight, static_cast<const T*>(x), queries, heads, kv_heads, keys, d_head,
                           out};
    return launch(Kernel::ATTENTION_KEY_SUMS, attention_key_sums<T>, grid, kKeyThreads, 0, stream,
                  op);
  });
}
