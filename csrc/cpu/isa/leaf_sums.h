// The sums of one leaf of k, M rows by V vectors of 16 outputs, in either order of
// docs/numerics.md: one chain, or blocks of 32 k in two chains, over even and over odd words.
#pragma once

#include "../simd.h"
#include "weight_panels.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

// Register tiles: rows by vectors of 16 outputs, from the cache and straight from panels, where a
// single row meets more panels at once. Of kRegisters vectors, kSumRegisters of sums leave room for
// the operands.
#if defined(BITLENS_ISA_AVX512)
constexpr int kRegisters = 32, kSumRegisters = 24, kTileVectors = 2, kDirectRows = 6;
constexpr int kSingleRowPanels = 4, kDirectPanels = 2;
constexpr int tile_rows(Order order) { return order == Order::kChain ? 12 : 6; }
#elif defined(BITLENS_ISA_AVX2)
constexpr int kRegisters = 8, kSumRegisters = 6, kTileVectors = 1, kDirectRows = 3;
constexpr int kSingleRowPanels = 2, kDirectPanels = 1;
constexpr int tile_rows(Order) { return 6; }
#else
constexpr int kRegisters = 8, kSumRegisters = 8, kTileVectors = 1, kDirectRows = 1;
constexpr int kSingleRowPanels = 1, kDirectPanels = 1;
constexpr int tile_rows(Order) { return 4; }
#endif
constexpr int64_t kMostDirectRows = 4 * kDirectRows;  // beyond, widening each time costs more

// Words of a whole leaf, and of a block of pairs.
template <typename Panel>
constexpr int64_t kLeafWords = kLeaf / Panel::kPerWord;
template <typename Panel>
constexpr int64_t kBlockWords = kPairBlock / Panel::kPerWord;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <int J>
struct Index {
  static constexpr int value = J;
};

template <typename F>
inline __attribute__((always_inline)) void eight_times(F f) {
  f(Index<0>{}), f(Index<1>{}), f(Index<2>{}), f(Index<3>{});
  f(Index<4>{}), f(Index<5>{}), f(Index<6>{}), f(Index<7>{});
}

// Which of a run's words are multiplied: all in one chain, those of two chains side by side, or one
// of them.
enum class Words { kAll, kBoth, kEven, kOdd };

// The chain of word J, or -1.
constexpr int chain_of(Words words, int j) {
  if (words == Words::kAll) return 0;
  if (words == Words::kBoth) return j % 2;
  return j % 2 == (words == Words::kOdd ? 1 : 0) ? 0 : -1;
}

// Vectors of weights that are widened before their rows are met: all of them, or one panel's where
// with what the readers hold they would push sums out of the registers.
template <typename Panel>
constexpr int widened_at_once(int rows, int vectors) {
  const int held = Panel::kHeldVectors * (vectors / 2);
  return rows * vectors + held + vectors <= kRegisters - 2 || vectors < 2 ? vectors : 2;
}

constexpr int chains_of(Words words) { return words == Words::kBoth ? 2 : 1; }

// Sums of M rows by V vectors, `first` and following of a source, over a run of words from +0. The
// array is a local of the caller: what is a member of an object compilers store once a step.
template <typename Panel, Words kWords, int M, int V, typename Source>
inline __attribute__((always_inline)) void chain_sums(Source& source, int first,
                                                      const typename Panel::Word* x, int64_t begin,
                                                      int64_t end,
                                                      f32x16 (&sums)[chains_of(kWords)][M][V]) {
  for (auto& chain : sums)
    for (auto& row : chain)
      for (f32x16& lanes : row) lanes = zero();
  auto add = [&](int64_t kk, auto j) __attribute__((always_inline)) {
    constexpr int J = decltype(j)::value, chain = chain_of(kWords, J);
    if constexpr (chain >= 0) {
      constexpr int kWidened = widened_at_once<Panel>(M, V);
#pragma GCC unroll 8
      for (int v = 0; v < V; v += kWidened) {
        typename Panel::Lanes w[kWidened];
        source.template get<J, kWidened>(first + v, w);
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m) {
          const auto a = x[m * kLeafWords<Panel> + kk + J];
#pragma GCC unroll 8
          for (int i = 0; i < kWidened; ++i)
            sums[chain][m][v + i] = Panel::multiply_add(a, w[i], sums[chain][m][v + i]);
        }
      }
    }
  };
  int64_t kk = begin;
  for (; kk + 8 <= end; kk += 8) {
    source.template seek<V>(first, kk);
    if (kWords != Words::kOdd) source.template fetch_ahead<V>(first, kk);
    eight_times([&](auto j) __attribute__((always_inline)) { add(kk, j); });
  }
  if constexpr (Panel::kAnyK) {
    for (; kk < end; kk += 2) {
      source.template seek<V>(first, kk);
      add(kk, Index<0>{});
      if (kk + 1 < end) add(kk, Index<1>{});
    }
  }
}

// Calls take(m, v, even + odd) with the sums of two chains: side by side where the registers hold
// them, else one after the other, the first waiting in the cache.
template <typename Panel, int M, int V, typename Source, typename Take>
inline __attribute__((always_inline)) void block_sums(Source& source, int first,
                                                      const typename Panel::Word* x, int64_t begin,
                                                      int64_t end, Take take) {
  if constexpr (2 * M * V <= kSumRegisters) {
    f32x16 sums[2][M][V];
    chain_sums<Panel, Words::kBoth, M, V>(source, first, x, begin, end, sums);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) take(m, v, sums[0][m][v] + sums[1][m][v]);
  } else {
    alignas(64) float waiting[M][V][16];
    f32x16 even[1][M][V], odd[1][M][V];
    chain_sums<Panel, Words::kEven, M, V>(source, first, x, begin, end, even);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) store(waiting[m][v], even[0][m][v]);
    chain_sums<Panel, Words::kOdd, M, V>(source, first, x, begin, end, odd);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) take(m, v, load(waiting[m][v]) + odd[0][m][v]);
  }
}

// Calls take(m, v, sum) with the sums of a leaf of `words` words, of M rows by V vectors; of these,
// as many meet a block of pairs at once as have both chains in registers.
template <typename Panel, Order kOrder, int M, int V, typename Source, typename Take>
inline __attribute__((always_inline)) void leaf_sums(Source& source, const typename Panel::Word* x,
                                                     int64_t words, Take take) {
  if constexpr (kOrder == Order::kChain) {
    f32x16 sums[1][M][V];
    chain_sums<Panel, Words::kAll, M, V>(source, 0, x, 0, words, sums);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) take(m, v, sums[0][m][v]);
  } else {
    constexpr int part = [] {
      int together = V;
      while (together > 1 && (V % together != 0 || 2 * M * together > kSumRegisters)) --together;
      return together;
    }();
    f32x16 leaf[M][V];
    for (auto& row : leaf)
      for (f32x16& lanes : row) lanes = zero();
    for (int64_t begin = 0; begin < words; begin += kBlockWords<Panel>) {
      const int64_t end = smaller(words, begin + kBlockWords<Panel>);
#pragma GCC unroll 8
      for (int first = 0; first < V; first += part)
        block_sums<Panel, M, part>(source, first, x, begin, end,
                                   [&](int m, int v, f32x16 sum) __attribute__((always_inline)) {
                                     leaf[m][first + v] = leaf[m][first + v] + sum;
                                   });
    }
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) take(m, v, leaf[m][v]);
  }
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
