// What the kernels of attention share: which queries a thread block has, and where their scores and
// sums are.
//
// Queries of one key-value head are numbered (row of the sequence, head of the group), so that a
// block of eight reads each key and value once for all of them. Rows are taken a chunk at a time,
// so that the workspace is linear in the keys: per chunk, scores [batch, chunk, heads, keys] and
// sums of leaves [batch, chunk, heads, leaves, d_head].
#pragma once

#include "../spec/attention.h"
#include "rows.h"
#include "sequences.h"

namespace bitlens::cuda {

constexpr int kQueries = 8;  // a thread block

__host__ __device__ inline int64_t leaves_of(int64_t keys) {
  return (keys + spec::kLeaf - 1) / spec::kLeaf;
}

template <typename T>
struct Attention {
  Sequences sequences;
  Pages<T> pages;
  int64_t heads, window, keys;  // keys: those of the longest sequence
  float scale, cap;
  bool stepwise;
  int64_t chunk0, chunk;  // rows of each sequence, relative to its first

  __device__ int64_t group() const { return heads / pages.kv_heads; }
  __device__ int64_t leaves() const { return leaves_of(keys); }
};

// A query of the chunk; not there where the sequence has no such row.
struct Query {
  bool there;
  int64_t row;  // of the whole batch
  int64_t head;
  int64_t slot;             // of the chunk's workspace, [batch, chunk, heads]
  int64_t first, position;  // the keys it sees
};

template <typename T>
__device__ inline Query query_of(const Attention<T>& op, int64_t b, int64_t kv_head,
                                 int64_t index) {
  const int64_t in_chunk = index / op.group(), head = kv_head * op.group() + index % op.group();
  const int64_t relative = op.chunk0 + in_chunk;
  Query q = {in_chunk < op.chunk && relative < op.sequences.rows(b), 0, head, 0, 0, 0};
  if (!q.there) return q;
  q.row = op.sequences.starts[b] + relative;
  q.slot = (b * op.chunk + in_chunk) * op.heads + head;
  q.position = op.sequences.past[b] + relative;
  q.first = spec::first_visible(q.position, op.window);
  return q;
}

// The query of a slot of the chunk.
template <typename T>
__device__ inline Query query_of_slot(const Attention<T>& op, int64_t slot) {
  const int64_t head = slot % op.heads, in_chunk = slot / op.heads % op.chunk;
  const int64_t index = in_chunk * op.group() + head % op.group();
  return query_of(op, slot / op.heads / op.chunk, head / op.group(), index);
}

}  // namespace bitlens::cuda
