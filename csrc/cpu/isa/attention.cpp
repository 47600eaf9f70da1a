// Attention of a block of rows: scores, softmax, values, each over the block's range of pages.
// Compiled once per instruction set; the orders are those of csrc/spec/attention.h.
#include "../../spec/formats.h"
#include "../attention_tiles.h"
#include "../simd_softmax.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

constexpr int64_t kMaxTiles = kBlockRows / kTileRows;

// The keys that some row of a tile sees, and those that every row sees.
struct TileSpan {
  int64_t row0, m;
  int64_t first, last, inner_first, inner_last;
};

// A block with its scratch cut into parts. Rows are padded to whole tiles.
struct Work {
  const AttentionBlock& block;
  TileSpan tiles[kMaxTiles];
  int64_t n_tiles;
  int64_t first_page, last_page;
  int64_t wide;          // d_head in whole vectors
  int64_t score_stride;  // an odd number of cache lines: rows must not share a cache set
  float *q, *leaf, *total, *scores;
};

int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

TileSpan span_of(const AttentionBlock& block, int64_t row0) {
  const int64_t m = min_of(kTileRows, block.n_rows - row0);
  const AttentionRow* rows = block.rows + row0;
  TileSpan span = {row0, m, rows[0].first, rows[0].last, rows[0].first, rows[0].last};
  for (int64_t i = 1; i < m; ++i) {
    span.first = min_of(span.first, rows[i].first);
    span.last = max_of(span.last, rows[i].last);
    span.inner_first = max_of(span.inner_first, rows[i].first);
    span.inner_last = min_of(span.inner_last, rows[i].last);
  }
  return span;
}

Work arrange(const AttentionBlock& block, float* scratch) {
  Work work = {block, {}, 0, 0, 0, 0, 0, nullptr, nullptr, nullptr, nullptr};
  int64_t first = INT64_MAX, last = 0;
  for (int64_t row = 0; row < block.n_rows; row += kTileRows) {
    const TileSpan span = span_of(block, row);
    first = min_of(first, span.first);
    last = max_of(last, span.last);
    work.tiles[work.n_tiles++] = span;
  }
  const int64_t rows = work.n_tiles * kTileRows;
  work.first_page = first / kPageKeys;
  work.last_page = (last + kPageKeys - 1) / kPageKeys;
  work.wide = (block.d_head + 15) / 16 * 16;
  work.score_stride = (work.last_page - work.first_page) * kPageKeys + 16;
  work.leaf = scratch;
  work.total = work.leaf + rows * work.wide;
  work.scores = work.total + rows * work.wide;
  work.q = work.scores + rows * work.score_stride;
  return work;
}

int64_t scratch_floats(const AttentionBlock& block) {
  const Work work = arrange(block, nullptr);
  return work.n_tiles * kTileRows * (2 * work.wide + work.score_stride + block.d_head);
}

inline float widen(float x) { return x; }
inline float widen(uint16_t x) { return spec::widen_bf16(x); }

// [tile, d_head, kTileRows]
template <typename T>
void pack_queries(const Work& work) {
  const int64_t d_head = work.block.d_head;
  for (int64_t row = 0; row < work.block.n_rows; ++row) {
    const T* q = static_cast<const T*>(work.block.rows[row].q);
    float* out = work.q + row / kTileRows * kTileRows * d_head + row % kTileRows;
    for (int64_t d = 0; d < d_head; ++d) out[d * kTileRows] = widen(q[d]);
  }
}

template <typename T>
void score_page(const Work& work, const TileSpan& tile, int64_t page) {
  const AttentionBlock& block = work.block;
  const T* k = static_cast<const T*>(block.k) + block.page_table[page] * block.page_stride;
  const float* q = work.q + tile.row0 * block.d_head;
  float* s = work.scores + tile.row0 * work.score_stride + (page - work.first_page) * kPageKeys;
  for (int64_t d = 0; d < block.d_head; d += kLeaf) {
    const int64_t depth = min_of(kLeaf, block.d_head - d);
    Tiles<T>::score[tile.m - 1]({q + d * kTileRows, k + d * kPageKeys, depth, s, work.score_stride,
                                 d == 0, d + depth == block.d_head, block.scale});
  }
}

// Caps what each row sees, in place.
void cap_scores(const Work& work) {
  const f32x16 cap = splat(work.block.cap);
  const int64_t origin = work.first_page * kPageKeys;
  for (int64_t row = 0; row < work.block.n_rows; ++row) {
    const AttentionRow& r = work.block.rows[row];
    for (int64_t j = r.first; j < r.last; j += 16) {
      float* s = work.scores + row * work.score_stride + (j - origin);
      const int n = static_cast<int>(min_of(16, r.last - j));
      store_n(s, soft_cap(load_n(s, n), cap), n);
    }
  }
}

// Scores of whole pages; what lies in a page but is masked holds anything, and is never looked at.
template <typename T>
void score_pages(const Work& work) {
  pack_queries<T>(work);
  for (int64_t page = work.first_page; page < work.last_page; ++page)
    for (int64_t i = 0; i < work.n_tiles; ++i) {
      const TileSpan& tile = work.tiles[i];
      if (page * kPageKeys < tile.last && (page + 1) * kPageKeys > tile.first)
        score_page<T>(work, tile, page);
    }
  if (work.block.cap > 0.0f) cap_scores(work);
}

// Turns a row's scores into its pattern, in place.
void softmax_visible(const Work& work, int64_t row) {
  const AttentionRow& r = work.block.rows[row];
  float* scores = work.scores + row * work.score_stride;
  const int64_t origin = work.first_page * kPageKeys;
  const int64_t begin = r.first / 16 * 16;
  for (int64_t j = begin; j < r.first; ++j) scores[j - origin] = -__builtin_inff();
  float* s = scores + (begin - origin);
  const spec::SoftmaxTerms terms = softmax_row(s, r.last - begin, begin % kRowBlock, s);
  if (r.lse) *r.lse = spec::logsumexp_of(terms);
}

// pattern[row][j - origin] for the keys of one page.
template <typename T>
struct ValuePage {
  const Work& work;
  const float* const* pattern;
  int64_t origin, page;
  const T* v;

  // Rows row0 .. row0 + m over the keys first <= j < last, as far as they lie in the page.
  void run(int64_t row0, int64_t m, int64_t first, int64_t last) const {
    first = max_of(first, page * kPageKeys);
    last = min_of(last, (page + 1) * kPageKeys);
    if (first >= last) return;
    const int64_t d_head = work.block.d_head;
    ValueRun run = {{},
                    v + (first - page * kPageKeys) * d_head,
                    last - first,
                    d_head,
                    work.leaf + row0 * work.wide,
                    work.wide};
    for (int64_t i = 0; i < m; ++i) run.pattern[i] = pattern[row0 + i] + (first - origin);
    Tiles<T>::value[m - 1](run);
  }

  // Keys that every row sees go through the tile; the ragged ones before and after, row by row.
  void tile(const TileSpan& span) const {
    const AttentionRow* rows = work.block.rows;
    const bool common = span.inner_first < span.inner_last;
    for (int64_t row = span.row0; row < span.row0 + span.m; ++row)
      run(row, 1, rows[row].first, common ? span.inner_first : rows[row].last);
    if (!common) return;
    run(span.row0, span.m, span.inner_first, span.inner_last);
    for (int64_t row = span.row0; row < span.row0 + span.m; ++row)
      run(row, 1, span.inner_last, rows[row].last);
  }
};

void clear(float* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) store(p + i, zero());
}

// total = total + leaf for the rows that saw a key in it, and an empty leaf for the next.
void add_leaf(const Work& work, int64_t leaf_first) {
  for (int64_t row = 0; row < work.block.n_rows; ++row) {
    const AttentionRow& r = work.block.rows[row];
    if (r.last <= leaf_first || r.first >= leaf_first + kLeaf) continue;
    float* leaf = work.leaf + row * work.wide;
    float* total = work.total + row * work.wide;
    const bool begins = leaf_first <= r.first;
    for (int64_t h = 0; h < work.wide; h += 16) {
      store(total + h, begins ? load(leaf + h) : load(total + h) + load(leaf + h));
      store(leaf + h, zero());
    }
  }
}

template <typename T>
void value_pages(const Work& work, const float* const* pattern, int64_t origin) {
  const AttentionBlock& block = work.block;
  clear(work.leaf, 2 * work.n_tiles * kTileRows * work.wide);  // leaf and total
  for (int64_t page = work.first_page; page < work.last_page; ++page) {
    const T* v = static_cast<const T*>(block.v) + block.page_table[page] * block.page_stride;
    const ValuePage<T> values = {work, pattern, origin, page, v};
    for (int64_t i = 0; i < work.n_tiles; ++i) values.tile(work.tiles[i]);
    const int64_t end = (page + 1) * kPageKeys;
    if (end % kLeaf == 0 || page + 1 == work.last_page)
      add_leaf(work, page * kPageKeys / kLeaf * kLeaf);
  }
  for (int64_t row = 0; row < block.n_rows; ++row) {
    T* out = static_cast<T*>(block.rows[row].out);
    const float* total = work.total + row * work.wide;
    for (int64_t h = 0; h < block.d_head; h += 16)
      store_n(out + h, load(total + h), static_cast<int>(min_of(16, block.d_head - h)));
  }
}

// A row of scores or pattern for a reader: the visible keys, and `masked` before and after them.
void copy_row(const Work& work, int64_t row, float masked, float* out) {
  const AttentionRow& r = work.block.rows[row];
  const float* from = work.scores + row * work.score_stride - work.first_page * kPageKeys;
  const auto fill = [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += 16)
      store_n(out + j, splat(masked), static_cast<int>(min_of(16, end - j)));
  };
  fill(0, r.first);
  for (int64_t j = r.first; j < r.last; j += 16) {
    const int lanes = static_cast<int>(min_of(16, r.last - j));
    store_n(out + j, load_n(from + j, lanes), lanes);
  }
  fill(r.last, work.block.k_total);
}

template <typename T>
void attend_as(const Work& work) {
  const float* pattern[kBlockRows];
  score_pages<T>(work);
  for (int64_t row = 0; row < work.block.n_rows; ++row) {
    const AttentionRow& r = work.block.rows[row];
    if (r.scores) copy_row(work, row, -__builtin_inff(), r.scores);
    softmax_visible(work, row);
    if (r.pattern_out) copy_row(work, row, 0.0f, r.pattern_out);
    pattern[row] = work.scores + row * work.score_stride;
  }
  value_pages<T>(work, pattern, work.first_page * kPageKeys);
}

void attend(const AttentionBlock& block, float* scratch) {
  const Work work = arrange(block, scratch);
  block.dtype == DType::F32 ? attend_as<float>(work) : attend_as<uint16_t>(work);
}

void scores(const AttentionBlock& block, float* scratch) {
  const Work work = arrange(block, scratch);
  block.dtype == DType::F32 ? score_pages<float>(work) : score_pages<uint16_t>(work);
  for (int64_t row = 0; row < block.n_rows; ++row)
    copy_row(work, row, -__builtin_inff(), block.rows[row].scores);
}

void values(const AttentionBlock& block, float* scratch) {
  const Work work = arrange(block, scratch);
  const float* pattern[kBlockRows];
  for (int64_t row = 0; row < block.n_rows; ++row) pattern[row] = block.rows[row].pattern;
  block.dtype == DType::F32 ? value_pages<float>(work, pattern, 0)
                            : value_pages<uint16_t>(work, pattern, 0);
}

constexpr AttentionKernels kAttentionKernels = {scratch_floats, attend, scores, values};

}  // namespace

const AttentionKernels& attention_kernels() { return kAttentionKernels; }

}  // namespace bitlens::BITLENS_ISA_NS
