// What linear's kernels have in common, whatever the panels hold: rows of activations against
// panels of weights in registers (direct_panels) or from the cache (tile). A word is one k or two
// of the same parity (weight_panels.h), 16 lanes are 16 outputs; leaf_sums.h adds up a leaf.
//
// Packed rows are [leaves][rows][words of a leaf].
#pragma once

#include "../linear_kernels.h"
#include "leaf_sums.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

// How far ahead of itself a stream fetches: blocks take longer to widen, so more is under way.
template <typename Panel>
constexpr int64_t kPrefetchBytes = Panel::kAnyK ? 1536 : 2048;

// Outputs beyond this size leave the caches before they are read, so they are not put there.
constexpr int64_t kMostCachedBytes = 16 << 20;

// Rows that meet `panels` panels at once: more panels than kDirectPanels leave registers for one.
constexpr int direct_rows_of(int panels) { return panels <= kDirectPanels ? kDirectRows : 1; }

// 16 outputs, count of them, past the caches where they would not stay in one.
template <typename T>
inline void put(T* out, f32x16 sum, int count, bool past_caches) {
  if (past_caches && count == 16 && reinterpret_cast<uintptr_t>(out) % (16 * sizeof(T)) == 0)
    return stream(out, sum);
  store_n(out, sum, count);
}

// totals [rows][32] of one panel -> bias, rounding, the panel's columns of `to`.
void finish(const float* totals, int64_t totals_stride, int64_t rows, int64_t row0,
            const LinearOutput& to, int64_t panel, bool past_caches = false) {
  const int64_t column = panel * kPanelColumns;
  const int64_t columns = smaller(kPanelColumns, to.weight.n - column);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t part = 0; part < columns; part += 16) {
      const int count = static_cast<int>(smaller(16, columns - part));
      f32x16 sum = load(totals + row * totals_stride + part);
      if (to.bias) sum = sum + load_n(to.bias + column + part, count);
      const int64_t at = (row0 + row) * to.stride + column + part;
      if (to.dtype == DType::F32)
        put(static_cast<float*>(to.out) + at, sum, count, past_caches);
      else
        put(static_cast<uint16_t*>(to.out) + at, sum, count, past_caches);
    }
  }
  if (past_caches) stream_fence();
}

// Tile by tile, fetches the leaf that the tiles meet next: of this panel, or of the next panel of
// this thread if threads take panels in turns.
template <typename Panel>
class NextLeaf {
 public:
  NextLeaf(const uint8_t* base, int64_t k, const RowTiles& x, int64_t k0, int64_t tile_rows)
      : at_(base + Panel::kHeaderBytes), tiles_((x.rows + tile_rows - 1) / tile_rows) {
    const bool last = k0 + kLeaf >= x.k1;
    at_ += (last ? x.k0 : k0 + kLeaf) / Panel::kPerWord * Panel::kBytesPerWord;
    if (last) at_ += x.threads * panel_bytes<Panel>(k);
  }

  void fetch_part(int64_t tile) const {
    constexpr int64_t lines = kLeafWords<Panel> * Panel::kBytesPerWord / 64;
    for (int64_t line = lines * tile / tiles_; line < lines * (tile + 1) / tiles_; ++line)
      __builtin_prefetch(at_ + line * 64, 0, 2);
  }

 private:
  const uint8_t* at_;
  const int64_t tiles_;
};

// What tiles make of a panel, once they have met its whole depth.
void finish_tiles(float* totals, const RowTiles& x, const LinearOutput& to, int64_t panel) {
  if (to.weight.k == 0) std::memset(totals, 0, static_cast<size_t>(x.rows) * 32 * sizeof(float));
  const int64_t bytes = x.all_rows * to.weight.n * static_cast<int64_t>(dtype_bytes(to.dtype));
  if (x.k1 == to.weight.k) finish(totals, 32, x.rows, x.row0, to, panel, bytes > kMostCachedBytes);
}

// P panels side by side, vectors 2 p and 2 p + 1 of panel p, read as their streams come.
template <typename Panel, int P>
struct Streams {
  const uint8_t* base;
  int64_t bytes, leaf;  // of a panel; the leaf's first word
  bool more;            // the next panels follow
  Panel reader[P]{};

  Streams(const uint8_t* panels, int64_t panel_bytes, bool more_follow)
      : base(panels), bytes(panel_bytes), leaf(0), more(more_follow) {
    for (int p = 0; p < P; ++p) reader[p].base = base + p * bytes;
  }

  template <int V>
  inline void seek(int first, int64_t word) {
#pragma GCC unroll 4
    for (int p = first / 2; 2 * p < first + V; ++p) reader[p].seek(leaf + word);
  }

  // Past its end, a stream goes on at the panel that takes its place in the next group.
  template <int V>
  inline void fetch_ahead(int first, int64_t word) const {
    if (first % 2 != 0) return;  // fetched with the panel's first vector
    const int64_t offset = (leaf + word) * Panel::kBytesPerWord + kPrefetchBytes<Panel>;
    if (offset >= bytes && !more) return;
    const int64_t next_group = offset < bytes ? 0 : (P - 1) * bytes;
#pragma GCC unroll 4
    for (int p = first / 2; 2 * p < first + V; ++p) {
      const uint8_t* ahead = base + p * bytes + offset + next_group;
      for (int64_t line = 0; line < 8 * Panel::kBytesPerWord; line += 64)
        __builtin_prefetch(ahead + line);
    }
  }

  template <int J, int V>
  inline void get(int first, typename Panel::Lanes* lanes) const {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const auto w = reader[(first + v) / 2].template get<J>();
      lanes[v] = (first + v) % 2 == 0 ? w.lo : w.hi;
    }
  }
};

// M of the `packed` rows of x, which are rows row0 .. of the output, through P panels. `more`: the
// next panels follow.
template <typename Panel, Order kOrder, int M, int P>
void direct_rows(const typename Panel::Word* x, int64_t packed, int64_t row0,
                 const LinearOutput& to, int64_t panel, bool more) {
  constexpr int64_t leaf = kLeafWords<Panel>;
  const int64_t words = words_of<Panel>(to.weight.k);
  const int64_t bytes = panel_bytes<Panel>(to.weight.k);
  Streams<Panel, P> streams(to.weight.data + panel * bytes, bytes, more);
  alignas(64) float totals[M][P * 32];
  for (int64_t k0 = 0; k0 < words; k0 += leaf, x += packed * leaf) {
    streams.leaf = k0;
    leaf_sums<Panel, kOrder, M, 2 * P>(streams, x, smaller(words - k0, leaf),
                                       [&](int m, int v, f32x16 sum)
                                           __attribute__((always_inline)) {
                                             float* total = &totals[m][v * 16];
                                             store(total, k0 == 0 ? sum : load(total) + sum);
                                           });
  }
  if (words == 0) std::memset(totals, 0, sizeof(totals));
  for (int p = 0; p < P; ++p) finish(&totals[0][p * 32], P * 32, M, row0, to, panel + p);
}

// m <= M rows.
template <typename Panel, Order kOrder, int M, int P>
void direct_group(const typename Panel::Word* x, int64_t packed, int64_t m, int64_t row0,
                  const LinearOutput& to, int64_t panel, bool more) {
  if (m == M) return direct_rows<Panel, kOrder, M, P>(x, packed, row0, to, panel, more);
  if constexpr (M > 1) direct_group<Panel, kOrder, M - 1, P>(x, packed, m, row0, to, panel, more);
}

// p <= P panels side by side, all rows while they are in the cache.
template <typename Panel, Order kOrder, int P>
void direct_panels_of(const typename Panel::Word* x, int64_t m, const LinearOutput& to,
                      int64_t panel, int64_t p, bool more) {
  if constexpr (P > 1)
    if (p < P) return direct_panels_of<Panel, kOrder, P - 1>(x, m, to, panel, p, more);
  const int64_t parts = (m + kDirectRows - 1) / kDirectRows;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t row0 = m * i / parts, rows = m * (i + 1) / parts - row0;
    direct_group<Panel, kOrder, direct_rows_of(P), P>(x + row0 * kLeafWords<Panel>, m, rows, row0,
                                                      to, panel, more);
  }
}

// The first bytes of `count` panels, which no stream fetches ahead of itself: all at once, where
// the first reads would wait for them one after the other.
template <typename Panel>
void fetch_heads(const LinearOutput& to, int64_t panel, int64_t count) {
  const int64_t bytes = panel_bytes<Panel>(to.weight.k);
  const uint8_t* base = to.weight.data + panel * bytes;
  for (int64_t at = 0; at < smaller(bytes, kPrefetchBytes<Panel>); at += 64)
    for (int64_t p = 0; p < count; ++p) __builtin_prefetch(base + p * bytes + at);
}

// Groups as even as they can be: a panel alone streams at half the speed.
template <typename Panel, Order kOrder>
void direct_panels(const typename Panel::Word* x, int64_t m, const LinearOutput& to, int64_t panel,
                   int64_t count) {
  const int64_t most = m == 1 ? kSingleRowPanels : kDirectPanels;
  const int64_t groups = (count + most - 1) / most;
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t first = count * i / groups, last = count * (i + 1) / groups;
    if (i == 0) fetch_heads<Panel>(to, panel, last);
    direct_panels_of<Panel, kOrder, kSingleRowPanels>(x, m, to, panel + first, last - first,
                                                      i + 1 < groups);
  }
}

// A leaf that is widened, or packed for its instruction, in the cache.
template <typename Panel>
struct CachedLeaf {
  const typename Panel::Word* words;  // [words][32], from the outputs that are wanted on
  const typename Panel::Word* at = nullptr;

  template <int V>
  inline void seek(int, int64_t word) {
    at = words + word * 32;
  }
  template <int V>
  inline void fetch_ahead(int, int64_t) const {}
  template <int J, int V>
  inline void get(int first, typename Panel::Lanes* lanes) const {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) lanes[v] = Panel::load_lanes(at + J * 32 + (first + v) * 16);
  }
};

// One leaf of a register tile: a [M][words of a leaf], b [words][32], totals [M][32].
template <typename Panel, Order kOrder, int M>
void tile(const typename Panel::Word* a, const typename Panel::Word* b, int64_t words,
          float* totals, bool first) {
  constexpr int V = kTileVectors;
  for (int part = 0; part < 2; part += V) {
    CachedLeaf<Panel> leaf{b + part * 16};
    leaf_sums<Panel, kOrder, M, V>(leaf, a, words,
                                   [&](int m, int v, f32x16 sum) __attribute__((always_inline)) {
                                     float* total = totals + m * 32 + (part + v) * 16;
                                     store(total, first ? sum : load(total) + sum);
                                   });
  }
}

// m <= M rows.
template <typename Panel, Order kOrder, int M>
void tile_of(int64_t m, const typename Panel::Word* a, const typename Panel::Word* b, int64_t words,
             float* totals, bool first) {
  if (m == M) return tile<Panel, kOrder, M>(a, b, words, totals, first);
  if constexpr (M > 1) tile_of<Panel, kOrder, M - 1>(m, a, b, words, totals, first);
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
