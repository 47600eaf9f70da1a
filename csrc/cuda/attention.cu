// Attention over paged keys and values: csrc/spec/attention.h, in four launches a chunk of rows.
// Scores, a page of 64 keys a thread block; the softmax of each row; sums of each leaf of 256
// absolute positions; and those sums in ascending order. The splits are the leaves, in prefill and
// in decoding alike.
#include "../spec/stepwise.h"
#include "attention.h"
#include "library.h"

namespace bitlens::cuda {
namespace {

constexpr int kValueThreads = 64;

// The score of a dot product.
template <typename T>
__device__ float score_of(const Attention<T>& op, float dot) {
  if (op.stepwise) return spec::stepwise_score(dot, op.scale, spec::Format::kBF16);
  const float score = dot * op.scale;
  return op.cap > 0.0f ? spec::soft_cap(score, op.cap) : score;
}

// dots[i] = q_i . k of one key, a chain a leaf of d_head.
template <typename T>
__device__ void dot_products(const float* q, const T* key, int64_t d_head, float* dots) {
  for (int64_t begin = 0; begin < d_head; begin += spec::kLeaf) {
    float leaf[kQueries] = {};
    const int64_t end = spec::block_end(begin, d_head, spec::kLeaf);
    for (int64_t h = begin; h < end; ++h) {
      const float k = load(key + h * kPageKeys);
#pragma unroll
      for (int i = 0; i < kQueries; ++i) leaf[i] = spec::fma32(q[i * d_head + h], k, leaf[i]);
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) dots[i] = begin == 0 ? leaf[i] : dots[i] + leaf[i];
  }
}

// Where scores or patterns are, rows of `keys`: of the chunk's slots, or of rows and heads of the
// whole batch.
struct Rows {
  float* values;
  int64_t keys;
  bool by_row;

  template <typename T>
  __device__ float* of(const Attention<T>& op, const Query& query) const {
    return values + (by_row ? query.row * op.heads + query.head : query.slot) * keys;
  }
};

// Scores of a page of keys, a thread a key; -inf where masked. Of slots nothing is written beyond
// the last page that a query sees. grid: pages, tiles of queries, batch * kv_heads.
template <typename T>
__global__ void __launch_bounds__(kPageKeys)
    attention_scores(Attention<T> op, const T* q, int64_t q_stride, Rows scores) {
  BL_DYNAMIC_SHARED(float, queries);  // [kQueries, d_head]
  const int64_t b = blockIdx.z / op.pages.kv_heads, kv_head = blockIdx.z % op.pages.kv_heads;
  const int64_t d_head = op.pages.d_head, index0 = static_cast<int64_t>(blockIdx.y) * kQueries;
  const int64_t j0 = static_cast<int64_t>(blockIdx.x) * kPageKeys, j = j0 + threadIdx.x;
  int64_t last = -1, first = INT64_MAX;
  for (int i = 0; i < kQueries; ++i) {
    const Query query = query_of(op, b, kv_head, index0 + i);
    if (!query.there) continue;
    last = query.position > last ? query.position : last;
    first = query.first < first ? query.first : first;
  }
  if (j0 > last && !scores.by_row) return;
  for (int i = 0; i < kQueries; ++i) {
    const Query query = query_of(op, b, kv_head, index0 + i);
    const T* from = q + query.row * q_stride + query.head * d_head;
    for (int64_t h = threadIdx.x; h < d_head; h += kPageKeys)
      queries[i * d_head + h] = query.there ? load(from + h) : 0.0f;
  }
  __syncthreads();
  float dots[kQueries] = {};
  const bool seen = j >= first && j <= last;
  if (seen) dot_products(queries, op.pages.key(b, j, kv_head), d_head, dots);
  for (int i = 0; i < kQueries; ++i) {
    const Query query = query_of(op, b, kv_head, index0 + i);
    if (!query.there || j >= op.keys) continue;
    const bool visible = j >= query.first && j <= query.position;
    scores.of(op, query)[j] = visible ? score_of(op, dots[i]) : spec::float_of(0xff800000u);
  }
}

// The pattern of a row of scores, in place, from the leaf of its first key to its last key. grid:
// slots of the chunk.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    attention_softmax(Attention<T> op, float* scores, float* lse) {
  BL_SHARED(float, sums, kGroups);
  const Query query = query_of_slot(op, blockIdx.x);
  if (!query.there) return;
  float* row = scores + query.slot * op.keys;
  const int64_t begin = query.first / spec::kRowBlock * spec::kRowBlock, end = query.position + 1;
  const float m0 =
      spec::finite_max(row_max(query.first, end, sums, [&](int64_t j) { return row[j]; }));
  const float sum = row_reduce(begin, end, sums, [&](int64_t j, float acc) {
    return j < query.first ? acc : acc + spec::exp_f32(row[j] - m0);
  });
  const float inverse = spec::softmax_inverse(sum);
  for (int64_t j = query.first + threadIdx.x; j < end; j += kRowThreads) {
    const float p = spec::exp_f32(row[j] - m0) * inverse;
    row[j] = op.stepwise ? spec::round_act(p, spec::Format::kBF16) : p;
  }
  if (lse != nullptr && threadIdx.x == 0)
    lse[query.row * op.heads + query.head] = spec::logsumexp_of({m0, sum});
}

// The keys of a leaf that each query of a tile sees, counted from the leaf's first.
struct LeafSpans {
  int first[kQueries], last[kQueries];  // first > last: none
  int end;                              // of all of them
};

template <typename T>
__device__ LeafSpans spans_of(const Attention<T>& op, int64_t b, int64_t kv_head, int64_t index0,
                              int64_t leaf0) {
  LeafSpans spans = {{}, {}, 0};
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    const Query query = query_of(op, b, kv_head, index0 + i);
    const int64_t first = query.first - leaf0, last = query.position - leaf0;
    const bool sees = query.there && first < spec::kLeaf && last >= 0;
    spans.first[i] = !sees ? 1 : static_cast<int>(first < 0 ? 0 : first);
    spans.last[i] = !sees ? 0 : static_cast<int>(last < spec::kLeaf ? last : spec::kLeaf - 1);
    if (sees && spans.last[i] + 1 > spans.end) spans.end = spans.last[i] + 1;
  }
  return spans;
}

// Weights of the keys of a page, from key j0 of the leaf on; 0 where masked.
template <typename T>
__device__ void load_weights(const Attention<T>& op, int64_t b, int64_t kv_head, int64_t index0,
                             int64_t j0, const Rows& pattern, float* weights) {
  for (int i = 0; i < kQueries; ++i) {
    const Query query = query_of(op, b, kv_head, index0 + i);
    const int64_t j = j0 + threadIdx.x;
    const bool visible = query.there && j >= query.first && j <= query.position;
    weights[i * kPageKeys + threadIdx.x] = visible ? pattern.of(op, query)[j] : 0.0f;
  }
}

// The keys of a page, j0 .. end of the leaf, of one element of the values. What no query sees is
// not read: it may hold anything.
template <typename T>
__device__ void add_values(const LeafSpans& spans, int j0, int end, const T* v, int64_t d_head,
                           const float* weights, float* acc) {
  for (int j = j0; j < end; ++j) {
    bool seen = false;
#pragma unroll
    for (int i = 0; i < kQueries; ++i) seen |= j >= spans.first[i] && j <= spans.last[i];
    if (!seen) continue;
    const float value = load(v + (j - j0) * d_head);
#pragma unroll
    for (int i = 0; i < kQueries; ++i)
      if (j >= spans.first[i] && j <= spans.last[i])
        acc[i] = spec::fma32(weights[i * kPageKeys + (j - j0)], value, acc[i]);
  }
}

// sums [slot, leaf, d_head]: a chain over the keys of a leaf that each query sees. grid: leaves,
// tiles of queries, batch * kv_heads.
template <typename T>
__global__ void __launch_bounds__(kValueThreads)
    attention_values(Attention<T> op, Rows pattern, float* sums) {
  BL_SHARED(float, weights, kQueries* kPageKeys);
  const int64_t b = blockIdx.z / op.pages.kv_heads, kv_head = blockIdx.z % op.pages.kv_heads;
  const int64_t d_head = op.pages.d_head, index0 = static_cast<int64_t>(blockIdx.y) * kQueries;
  const int64_t leaf0 = static_cast<int64_t>(blockIdx.x) * spec::kLeaf;
  const LeafSpans spans = spans_of(op, b, kv_head, index0, leaf0);
  for (int64_t h0 = 0; h0 < d_head; h0 += kValueThreads) {
    const int64_t h = h0 + threadIdx.x;
    float acc[kQueries] = {};
    for (int j0 = 0; j0 < spans.end; j0 += kPageKeys) {
      __syncthreads();
      load_weights(op, b, kv_head, index0, leaf0 + j0, pattern, weights);
      __syncthreads();
      const int end = j0 + kPageKeys < spans.end ? j0 + kPageKeys : spans.end;
      if (h < d_head)
        add_values(spans, j0, end, op.pages.value(b, leaf0 + j0, kv_head) + h, d_head, weights,
                   acc);
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      const Query query = query_of(op, b, kv_head, index0 + i);
      if (query.there && h < d_head)
        sums[(query.slot * op.leaves() + blockIdx.x) * d_head + h] = acc[i];
    }
  }
}

// z: the sums of the leaves in which the query sees a key, ascending. grid: slots of the chunk.
template <typename T>
__global__ void __launch_bounds__(kValueThreads)
    attention_sum(Attention<T> op, const float* sums, T* out, int64_t out_stride) {
  const Query query = query_of_slot(op, blockIdx.x);
  if (!query.there) return;
  const int64_t d_head = op.pages.d_head;
  const int64_t begin = query.first / spec::kLeaf, end = query.position / spec::kLeaf;
  for (int64_t h = threadIdx.x; h < d_head; h += kValueThreads) {
    const float* leaf = sums + query.slot * op.leaves() * d_head + h;
    float total = leaf[begin * d_head];
    for (int64_t i = begin + 1; i <= end; ++i) total = total + leaf[i * d_head];
    store(out + query.row * out_stride + query.head * d_head + h, total);
  }
}

// Everything a call is given; the kernels get one chunk of it.
struct AttentionCall {
  const int64_t *starts, *past;
  int64_t batch, max_rows, heads, kv_heads, d_head, window, keys;
  float scale, cap;
  int stepwise;
  const int32_t* table;
  int64_t width;
  void *k_pages, *v_pages;

  int64_t leaves() const { return leaves_of(keys); }
  int64_t row_floats() const { return batch * heads * (keys + leaves() * d_head); }
};

template <typename T>
Attention<T> chunk_of(const AttentionCall& call, int64_t chunk0, int64_t chunk) {
  return {
      {call.starts, call.past, call.batch},
      pages_of<T>(call.kv_heads, call.d_head, call.table, call.width, call.k_pages, call.v_pages),
      call.heads,
      call.window,
      call.keys,
      call.scale,
      call.cap,
      call.stepwise != 0,
      chunk0,
      chunk};
}

unsigned tiles(const AttentionCall& call, int64_t chunk) {
  const int64_t queries = chunk * (call.heads / call.kv_heads);
  return static_cast<unsigned>((queries + kQueries - 1) / kQueries);
}

unsigned slots(const AttentionCall& call, int64_t chunk) {
  return static_cast<unsigned>(call.batch * chunk * call.heads);
}

// Rows that a workspace holds at a time; 0 if it does not hold one.
int64_t chunk_rows(const AttentionCall& call, int64_t floats) {
  const int64_t rows = floats / call.row_floats();
  return rows < call.max_rows ? rows : call.max_rows;
}

template <typename T>
int launch_scores(const AttentionCall& call, const Attention<T>& op, const void* q,
                  int64_t q_stride, const Rows& scores, void* stream) {
  const dim3 grid(static_cast<unsigned>((call.keys + kPageKeys - 1) / kPageKeys),
                  tiles(call, op.chunk), static_cast<unsigned>(call.batch * call.kv_heads));
  const size_t shared = static_cast<size_t>(kQueries * call.d_head) * sizeof(float);
  return launch(Kernel::ATTENTION_SCORES, attention_scores<T>, grid, kPageKeys, shared, stream, op,
                static_cast<const T*>(q), q_stride, scores);
}

template <typename T>
int launch_values(const AttentionCall& call, const Attention<T>& op, const Rows& pattern,
                  float* sums, void* out, int64_t out_stride, void* stream) {
  const dim3 grid(static_cast<unsigned>(call.leaves()), tiles(call, op.chunk),
                  static_cast<unsigned>(call.batch * call.kv_heads));
  const int code = launch(Kernel::ATTENTION_VALUES, attention_values<T>, grid, kValueThreads, 0,
                          stream, op, pattern, sums);
  if (code != 0) return code;
  return launch(Kernel::ATTENTION_SUM, attention_sum<T>, dim3(slots(call, op.chunk)), kValueThreads,
                0, stream, op, sums, static_cast<T*>(out), out_stride);
}

template <typename T>
int attend(const AttentionCall& call, const void* q, int64_t q_stride, void* out,
           int64_t out_stride, float* lse, float* workspace, int64_t floats, void* stream) {
  const int64_t rows = chunk_rows(call, floats);
  if (rows == 0) return kWorkspaceTooSmall;
  float* sums = workspace + rows * call.batch * call.heads * call.keys;
  for (int64_t chunk0 = 0; chunk0 < call.max_rows; chunk0 += rows) {
    const Attention<T> op = chunk_of<T>(call, chunk0, rows);
    const Rows pattern = {workspace, call.keys, false};
    int code = launch_scores<T>(call, op, q, q_stride, pattern, stream);
    if (code == 0)
      code = launch(Kernel::ATTENTION_SOFTMAX, attention_softmax<T>, dim3(slots(call, rows)),
                    kRowThreads, 0, stream, op, workspace, lse);
    if (code == 0) code = launch_values<T>(call, op, pattern, sums, out, out_stride, stream);
    if (code != 0) return code;
  }
  return 0;
}

template <typename T>
int values(const AttentionCall& call, float* pattern, void* out, int64_t out_stride,
           float* workspace, int64_t floats, void* stream) {
  const int64_t rows = chunk_rows(call, floats);
  if (rows == 0) return kWorkspaceTooSmall;
  for (int64_t chunk0 = 0; chunk0 < call.max_rows; chunk0 += rows) {
    const Attention<T> op = chunk_of<T>(call, chunk0, rows);
    const int code =
        launch_values<T>(call, op, {pattern, call.keys, true}, workspace, out, out_stride, stream);
    if (code != 0) return code;
  }
  return 0;
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int64_t blc_attention_workspace(int64_t batch, int64_t rows, int64_t heads, int64_t d_head,
                                int64_t keys) {
  AttentionCall call = {};
  call.batch = batch, call.heads = heads, call.d_head = d_head, call.keys = keys;
  return rows * call.row_floats();
}

int blc_attention(const void* q, int dtype, int64_t q_stride, int64_t heads, int64_t kv_heads,
                  int64_t d_head, float scale, float cap, int64_t window, int stepwise,
                  const int64_t* starts, const int64_t* past, int64_t batch, int64_t max_rows,
                  int64_t keys, const int32_t* table, int64_t width, void* k_pages, void* v_pages,
                  void* out, int64_t out_stride, float* lse, float* workspace, int64_t floats,
                  void* stream) {
  const AttentionCall call = {starts, past,  batch, max_rows, heads, kv_heads, d_head,  window,
                              keys,   scale, cap,   stepwise, table, width,    k_pages, v_pages};
  auto* run = dtype == kF32 ? attend<float> : attend<uint16_t>;
  return run(call, q, q_stride, out, out_stride, lse, workspace, floats, stream);
}

int blc_attention_scores(const void* q, int dtype, int64_t q_stride, int64_t heads,
                         int64_t kv_heads, int64_t d_head, float scale, float cap, int64_t window,
                         const int64_t* starts, const int64_t* past, int64_t batch,
                         int64_t max_rows, int64_t keys, const int32_t* table, int64_t width,
                         void* k_pages, float* scores, void* stream) {
  const AttentionCall call = {starts, past,  batch, max_rows, heads, kv_heads, d_head,  window,
                              keys,   scale, cap,   0,        table, width,    k_pages, nullptr};
  const Rows rows = {scores, keys, true};
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch_scores<T>(call, chunk_of<T>(call, 0, max_rows), q, q_stride, rows, stream);
  });
}

int blc_attention_values(float* pattern, int dtype, int64_t heads, int64_t kv_heads, int64_t d_head,
                         int64_t window, const int64_t* starts, const int64_t* past, int64_t batch,
                         int64_t max_rows, int64_t keys, const int32_t* table, int64_t width,
                         void* v_pages, void* out, int64_t out_stride, float* workspace,
                         int64_t floats, void* stream) {
  const AttentionCall call = {starts, past, batch, max_rows, heads, kv_heads, d_head,  window,
                              keys,   1.0f, 0.0f,  0,        table, width,    nullptr, v_pages};
  auto* run = dtype == kF32 ? values<float> : values<uint16_t>;
  return run(call, pattern, out, out_stride, workspace, floats, stream);
}
