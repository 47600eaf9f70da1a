#include "attention.h"

#include <algorithm>
#include <vector>

#include "float_environment.h"
#include "kernels.h"
#include "scratch.h"
#include "threads.h"

namespace bitlens {
namespace {

constexpr int64_t kScoreFloats = 96 * 1024;  // a block's scores stay in the second-level cache
constexpr int64_t kSerialWork = 1 << 19;     // multiply-adds that are done before a thread is awake

// Query rows [begin, end) of one sequence and one key-value head. Rows count query heads within
// tokens: row / group is a token (or a place in `indices`), row % group a head of the group.
struct BlockTask {
  int64_t sequence, kv_head, begin, end;
  int64_t work;
};

// What a call reads and writes besides the cache; null pointers are not used by its kernel.
struct Operands {
  const void* q;
  int64_t q_stride;
  void* out;
  int64_t out_stride;
  float* lse;
  float *scores, *pattern_out;
  const float* pattern;
  int64_t k_total;
  const int64_t* indices;  // null: every row
};

using Kernel = void (*)(const AttentionBlock&, float*);

const void* at(const void* p, int64_t index, DType dtype) {
  return static_cast<const uint8_t*>(p) + index * static_cast<int64_t>(dtype_bytes(dtype));
}

void* at(void* p, int64_t index, DType dtype) {
  return static_cast<uint8_t*>(p) + index * static_cast<int64_t>(dtype_bytes(dtype));
}

// Query heads that share a key-value head.
int64_t group_of(const Attention& op) { return op.n_heads / op.pages.n_kv_heads; }

int64_t row_at(const Operands& io, int64_t place) { return io.indices ? io.indices[place] : place; }

AttentionRow row_of(const Attention& op, const Operands& io, const BlockTask& task, int64_t index) {
  const int64_t place = index / group_of(op);
  const int64_t row = row_at(io, place);
  const int64_t head = task.kv_head * group_of(op) + index % group_of(op);
  const int64_t position = op.rows.past[task.sequence] + row - op.rows.starts[task.sequence];
  const int64_t d_head = op.pages.d_head;
  const DType dtype = op.pages.dtype;
  AttentionRow r = {};
  r.first = op.window > 0 ? std::max<int64_t>(0, position - op.window + 1) : 0;
  r.last = position + 1;
  if (io.q) r.q = at(io.q, row * io.q_stride + head * d_head, dtype);
  if (io.out) r.out = at(io.out, row * io.out_stride + head * d_head, dtype);
  if (io.lse) r.lse = io.lse + row * op.n_heads + head;
  if (io.scores) r.scores = io.scores + (place * op.n_heads + head) * io.k_total;
  if (io.pattern_out) r.pattern_out = io.pattern_out + (row * op.n_heads + head) * io.k_total;
  if (io.pattern) r.pattern = io.pattern + (row * op.n_heads + head) * io.k_total;
  return r;
}

void run_block(const Attention& op, const Operands& io, const BlockTask& task, Kernel kernel) {
  thread_local Scratch scratch;
  AttentionRow rows[kBlockRows];
  for (int64_t i = task.begin; i < task.end; ++i) rows[i - task.begin] = row_of(op, io, task, i);
  const KVPages& pages = op.pages;
  const int64_t head_size = kPageKeys * pages.d_head;
  const AttentionBlock block = {
      rows,
      task.end - task.begin,
      pages.dtype,
      pages.d_head,
      op.scale,
      op.cap,
      pages.page_table + task.sequence * pages.max_pages,
      pages.k ? at(pages.k, task.kv_head * head_size, pages.dtype) : nullptr,
      pages.v ? at(pages.v, task.kv_head * head_size, pages.dtype) : nullptr,
      pages.n_kv_heads * head_size,
      io.k_total};
  kernel(block, scratch.floats(kernels().attention.scratch(block)));
}

// Cuts places [begin, end), rows of one sequence, into blocks for every key-value head.
void add_tasks(const Attention& op, int64_t sequence, int64_t begin, int64_t end,
               std::vector<BlockTask>& tasks) {
  if (begin == end) return;
  const int64_t group = group_of(op);
  const int64_t past = op.rows.past[sequence];
  const int64_t length = past + op.rows.starts[sequence + 1] - op.rows.starts[sequence];
  const int64_t keys = op.window > 0 ? std::min(length, op.window + kBlockRows) : length;
  const int64_t tiles = kScoreFloats / (keys * kTileRows);
  const int64_t step = std::clamp(tiles * kTileRows, kTileRows, kBlockRows);
  for (int64_t row = begin * group; row < end * group; row += step) {
    const int64_t stop = std::min(end * group, row + step);
    const int64_t reach = std::min(keys, past + stop / group - begin + 1);
    const int64_t work = (stop - row) * reach * op.pages.d_head * 2;
    for (int64_t g = 0; g < op.pages.n_kv_heads; ++g)
      tasks.push_back({sequence, g, row, stop, work});
  }
}

// Heavy blocks first, so that threads finish together.
void run_tasks(const Attention& op, const Operands& io, std::vector<BlockTask>& tasks,
               Kernel kernel) {
  const FloatEnvironment environment;
  int64_t work = 0;
  for (const BlockTask& task : tasks) work += task.work;
  const auto run = [&](int64_t i) { run_block(op, io, tasks[static_cast<size_t>(i)], kernel); };
  const int64_t count = static_cast<int64_t>(tasks.size());
  if (work <= kSerialWork || num_threads() == 1) {
    for (int64_t i = 0; i < count; ++i) run(i);
    return;
  }
  std::sort(tasks.begin(), tasks.end(),
            [](const BlockTask& a, const BlockTask& b) { return a.work > b.work; });
  parallel_for(count, [&](int64_t i) { run(i); });
}

void run_all_rows(const Attention& op, const Operands& io, Kernel kernel) {
  thread_local std::vector<BlockTask>
      tasks;  // kept for the next call: no allocation while decoding
  tasks.clear();
  for (int64_t b = 0; b < op.rows.batch; ++b)
    add_tasks(op, b, op.rows.starts[b], op.rows.starts[b + 1], tasks);
  run_tasks(op, io, tasks, kernel);
}

}  // namespace

void attention(const Attention& op, const void* q, int64_t q_stride, void* out, int64_t out_stride,
               float* lse, const AttentionTaps& taps) {
  Operands io = {};
  io.scores = taps.scores;
  io.pattern_out = taps.pattern;
  io.k_total = taps.n_keys;
  io.q = q;
  io.q_stride = q_stride;
  io.out = out;
  io.out_stride = out_stride;
  io.lse = lse;
  run_all_rows(op, io, kernels().attention.attend);
}

void attention_values(const Attention& op, const float* pattern, int64_t k_total, void* out,
                      int64_t out_stride) {
  Operands io = {};
  io.pattern = pattern;
  io.k_total = k_total;
  io.out = out;
  io.out_stride = out_stride;
  run_all_rows(op, io, kernels().attention.values);
}

void attention_scores(const Attention& op, const void* q, int64_t q_stride, const int64_t* indices,
                      int64_t n_indices, int64_t k_total, float* out) {
  Operands io = {};
  io.q = q;
  io.q_stride = q_stride;
  io.scores = out;
  io.k_total = k_total;
  io.indices = indices;
  const int64_t* ends = op.rows.starts + 1;
  std::vector<BlockTask> tasks;
  for (int64_t begin = 0, end; begin < n_indices; begin = end) {
    const int64_t b = std::upper_bound(ends, ends + op.rows.batch, indices[begin]) - ends;
    for (end = begin + 1; end < n_indices; ++end)
      if (indices[end] < op.rows.starts[b] || indices[end] >= ends[b]) break;
    add_tasks(op, b, begin, end, tasks);
  }
  run_tasks(op, io, tasks, kernels().attention.scores);
}

}  // namespace bitlens
