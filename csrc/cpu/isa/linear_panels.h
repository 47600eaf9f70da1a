// What linear's kernels have in common, whatever the panels hold: rows of activations against
// panels of weights in registers (direct_panels) or from the cache (tile). A word is one k or a
// pair of k (weight_panels.h), 16 lanes are 16 outputs, and a leaf of 256 k is one FMA chain from
// +0.
//
// Packed rows are [leaves][rows][words of a leaf].
#pragma once

#include "../linear_kernels.h"
#include "../simd.h"
#include "weight_panels.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

#if defined(BITLENS_ISA_AVX512)
constexpr int kTileRows = 12, kTileVectors = 2, kDirectRows = 6;
constexpr int kSingleRowPanels = 4, kDirectPanels = 2;
#elif defined(BITLENS_ISA_AVX2)
constexpr int kTileRows = 6, kTileVectors = 1, kDirectRows = 3;
constexpr int kSingleRowPanels = 2, kDirectPanels = 1;
#else
constexpr int kTileRows = 4, kTileVectors = 1, kDirectRows = 1;
constexpr int kSingleRowPanels = 1, kDirectPanels = 1;
#endif
constexpr int64_t kMostDirectRows = 4 * kDirectRows;  // beyond, widening each time costs more

// How far ahead of itself a stream fetches: blocks take longer to widen, so more is under way.
template <typename Panel>
constexpr int64_t kPrefetchBytes = Panel::kAnyK ? 1536 : 2048;

// Outputs beyond this size leave the caches before they are read, so they are not put there.
constexpr int64_t kMostCachedBytes = 16 << 20;

// Words of a whole leaf.
template <typename Panel>
constexpr int64_t kLeafWords = kLeaf / Panel::kPerWord;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows that meet `panels` panels at once: more panels than kDirectPanels leave registers for one.
constexpr int direct_rows_of(int panels) { return panels <= kDirectPanels ? kDirectRows : 1; }

template <int J>
struct Index {
  static constexpr int value = J;
};

template <typename F>
inline __attribute__((always_inline)) void eight_times(F f) {
  f(Index<0>{}), f(Index<1>{}), f(Index<2>{}), f(Index<3>{});
  f(Index<4>{}), f(Index<5>{}), f(Index<6>{}), f(Index<7>{});
}

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
  NextLeaf(const uint8_t* base, int64_t k, const RowTiles& x, int64_t k0)
      : at_(base + Panel::kHeaderBytes), tiles_((x.rows + kTileRows - 1) / kTileRows) {
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

// M of the `packed` rows of x, which are rows row0 .. of the output, through P panels. `more`: the
// next panels follow.
template <typename Panel, int M, int P>
void direct_rows(const typename Panel::Word* x, int64_t packed, int64_t row0,
                 const LinearOutput& to, int64_t panel, bool more) {
  using Lanes = typename Panel::Lanes;
  constexpr int64_t leaf = kLeafWords<Panel>;
  const int64_t words = (to.weight.k + Panel::kPerWord - 1) / Panel::kPerWord;
  const int64_t bytes = panel_bytes<Panel>(to.weight.k);
  const uint8_t* base = to.weight.data + panel * bytes;
  alignas(64) float totals[M][P * 32];
  for (int64_t k0 = 0; k0 < words; k0 += leaf, x += packed * leaf) {
    const int64_t k1 = smaller(words, k0 + leaf);
    f32x16 sum[M][P][2];
    for (int m = 0; m < M; ++m)
      for (int p = 0; p < P; ++p) sum[m][p][0] = sum[m][p][1] = zero();
    Panel reader[P]{};
    for (int p = 0; p < P; ++p) reader[p].base = base + p * bytes;
    auto accumulate = [&](int64_t kk, auto j) __attribute__((always_inline)) {
      constexpr int J = decltype(j)::value;
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const Columns<Lanes> w = reader[p].template get<J>();
#pragma GCC unroll 6
        for (int m = 0; m < M; ++m) {
          const auto a = x[m * leaf + kk - k0 + J];
          sum[m][p][0] = Panel::multiply_add(a, w.lo, sum[m][p][0]);
          sum[m][p][1] = Panel::multiply_add(a, w.hi, sum[m][p][1]);
        }
      }
    };
    int64_t kk = k0;
    for (; kk + 8 <= k1; kk += 8) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        reader[p].seek(kk);
        // Past its end, a stream goes on at the panel that takes its place in the next group.
        const int64_t offset = kk * Panel::kBytesPerWord + kPrefetchBytes<Panel>;
        if (offset >= bytes && !more) continue;
        const int64_t next_group = offset < bytes ? 0 : (P - 1) * bytes;
        const uint8_t* ahead = base + p * bytes + offset + next_group;
        for (int64_t line = 0; line < 8 * Panel::kBytesPerWord; line += 64)
          __builtin_prefetch(ahead + line);
      }
      eight_times([&](auto j) __attribute__((always_inline)) { accumulate(kk, j); });
    }
    if constexpr (Panel::kAnyK) {
      for (; kk < k1; kk += 2) {
        for (int p = 0; p < P; ++p) reader[p].seek(kk);
        accumulate(kk, Index<0>{});
        if (kk + 1 < k1) accumulate(kk, Index<1>{});
      }
    }
    for (int m = 0; m < M; ++m)
      for (int p = 0; p < P; ++p)
        for (int half = 0; half < 2; ++half) {
          float* total = &totals[m][p * 32 + half * 16];
          store(total, k0 == 0 ? sum[m][p][half] : load(total) + sum[m][p][half]);
        }
  }
  if (words == 0) std::memset(totals, 0, sizeof(totals));
  for (int p = 0; p < P; ++p) finish(&totals[0][p * 32], P * 32, M, row0, to, panel + p);
}

// m <= M rows.
template <typename Panel, int M, int P>
void direct_group(const typename Panel::Word* x, int64_t packed, int64_t m, int64_t row0,
                  const LinearOutput& to, int64_t panel, bool more) {
  if (m == M) return direct_rows<Panel, M, P>(x, packed, row0, to, panel, more);
  if constexpr (M > 1) direct_group<Panel, M - 1, P>(x, packed, m, row0, to, panel, more);
}

// p <= P panels side by side, all rows while they are in the cache.
template <typename Panel, int P>
void direct_panels_of(const typename Panel::Word* x, int64_t m, const LinearOutput& to,
                      int64_t panel, int64_t p, bool more) {
  if constexpr (P > 1)
    if (p < P) return direct_panels_of<Panel, P - 1>(x, m, to, panel, p, more);
  const int64_t parts = (m + kDirectRows - 1) / kDirectRows;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t row0 = m * i / parts, rows = m * (i + 1) / parts - row0;
    direct_group<Panel, direct_rows_of(P), P>(x + row0 * kLeafWords<Panel>, m, rows, row0, to,
                                              panel, more);
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
template <typename Panel>
void direct_panels(const typename Panel::Word* x, int64_t m, const LinearOutput& to, int64_t panel,
                   int64_t count) {
  const int64_t most = m == 1 ? kSingleRowPanels : kDirectPanels;
  const int64_t groups = (count + most - 1) / most;
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t first = count * i / groups, last = count * (i + 1) / groups;
    if (i == 0) fetch_heads<Panel>(to, panel, last);
    direct_panels_of<Panel, kSingleRowPanels>(x, m, to, panel + first, last - first,
                                              i + 1 < groups);
  }
}

// One leaf of a register tile: a [M][words of a leaf], b [words][32], totals [M][32].
template <typename Panel, int M>
void tile(const typename Panel::Word* a, const typename Panel::Word* b, int64_t words,
          float* totals, bool first) {
  constexpr int V = kTileVectors;
  for (int part = 0; part < 2; part += V) {
    f32x16 sum[M][V];
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] = zero();
    for (int64_t kk = 0; kk < words; ++kk) {
      typename Panel::Lanes w[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) w[v] = Panel::load_lanes(b + kk * 32 + (part + v) * 16);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) {
        const auto x = a[m * kLeafWords<Panel> + kk];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[m][v] = Panel::multiply_add(x, w[v], sum[m][v]);
      }
    }
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) {
        float* total = totals + m * 32 + (part + v) * 16;
        store(total, first ? sum[m][v] : load(total) + sum[m][v]);
      }
  }
}

// m <= M rows.
template <typename Panel, int M>
void tile_of(int64_t m, const typename Panel::Word* a, const typename Panel::Word* b, int64_t words,
             float* totals, bool first) {
  if (m == M) return tile<Panel, M>(a, b, words, totals, first);
  if constexpr (M > 1) tile_of<Panel, M - 1>(m, a, b, words, totals, first);
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
