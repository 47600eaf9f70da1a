// linear (docs/numerics.md): one vector lane is one output, a leaf of 256 k is one FMA chain from
// +0, leaf sums are added in ascending order, then the bias, then one rounding. GEMV and GEMM read
// the same panels and run the same chains, so they give the same bits.
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

template <typename T>
struct Type {
  using type = T;
};

// Calls f with the reader type of the format.
template <typename F>
inline void with_panel(Format format, F f) {
  switch (format) {
    case Format::F32:
      return f(Type<F32Panel>{});
    case Format::F16:
      return f(Type<F16Panel>{});
    case Format::BF16:
      return f(Type<Bf16Panel>{});
    case Format::Q8_0:
      return f(Type<Q8Panel>{});
    case Format::Q4_0:
      return f(Type<Q4Panel<false>>{});
    case Format::Q4_1:
      return f(Type<Q4Panel<true>>{});
  }
}

// totals [rows][32] of one panel -> bias, rounding, the panel's columns of `to`.
void finish(const float* totals, int64_t totals_stride, int64_t rows, int64_t row0,
            const LinearOutput& to, int64_t panel) {
  const int64_t column = panel * kPanelColumns;
  const int64_t columns = smaller(kPanelColumns, to.weight.n - column);
  for (int64_t part = 0; part < columns; part += 16) {
    const int count = static_cast<int>(smaller(16, columns - part));
    const f32x16 bias = to.bias ? load_n(to.bias + column + part, count) : zero();
    for (int64_t row = 0; row < rows; ++row) {
      f32x16 sum = load(totals + row * totals_stride + part);
      if (to.bias) sum = sum + bias;
      const int64_t at = (row0 + row) * to.stride + column + part;
      if (to.dtype == DType::F32)
        store_n(static_cast<float*>(to.out) + at, sum, count);
      else
        store_n(static_cast<uint16_t*>(to.out) + at, sum, count);
    }
  }
}

// M rows of x, which are rows row0 .. of the output, through P panels. `more`: the next panels
// follow.
template <typename Panel, int M, int P>
void direct_rows(const float* x, int64_t row0, const LinearOutput& to, int64_t panel, bool more) {
  const int64_t k = to.weight.k;
  const int64_t bytes = panel_bytes<Panel>(k);
  const uint8_t* base = to.weight.data + panel * bytes;
  alignas(64) float totals[M][P * 32];
  for (int64_t k0 = 0; k0 < k; k0 += kLeaf) {
    const int64_t k1 = smaller(k, k0 + kLeaf);
    f32x16 sum[M][P][2];
    for (int m = 0; m < M; ++m)
      for (int p = 0; p < P; ++p) sum[m][p][0] = sum[m][p][1] = zero();
    Panel reader[P]{};
    for (int p = 0; p < P; ++p) reader[p].base = base + p * bytes;
    auto accumulate = [&](int64_t kk, auto j) __attribute__((always_inline)) {
      constexpr int J = decltype(j)::value;
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const Pair w = reader[p].template get<J>();
#pragma GCC unroll 6
        for (int m = 0; m < M; ++m) {
          const f32x16 a = splat(x[m * k + kk + J]);
          sum[m][p][0] = fma(a, w.lo, sum[m][p][0]);
          sum[m][p][1] = fma(a, w.hi, sum[m][p][1]);
        }
      }
    };
    int64_t kk = k0;
    for (; kk + 8 <= k1; kk += 8) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        reader[p].seek(kk);
        // Past its end, a stream goes on at the panel that takes its place in the next group.
        const int64_t offset = kk * Panel::kBytesPerK + kPrefetchBytes<Panel>;
        if (offset >= bytes && !more) continue;
        const int64_t next_group = offset < bytes ? 0 : (P - 1) * bytes;
        const uint8_t* ahead = base + p * bytes + offset + next_group;
        for (int64_t line = 0; line < 8 * Panel::kBytesPerK; line += 64)
          __builtin_prefetch(ahead + line);
      }
      eight_times([&](auto j) __attribute__((always_inline)) { accumulate(kk, j); });
    }
    if constexpr (Panel::kAnyK) {
      for (; kk < k1; ++kk) {
        for (int p = 0; p < P; ++p) reader[p].seek(kk);
        accumulate(kk, Index<0>{});
      }
    }
    for (int m = 0; m < M; ++m)
      for (int p = 0; p < P; ++p)
        for (int half = 0; half < 2; ++half) {
          float* total = &totals[m][p * 32 + half * 16];
          store(total, k0 == 0 ? sum[m][p][half] : load(total) + sum[m][p][half]);
        }
  }
  if (k == 0) std::memset(totals, 0, sizeof(totals));
  for (int p = 0; p < P; ++p) finish(&totals[0][p * 32], P * 32, M, row0, to, panel + p);
}

// m <= M rows.
template <typename Panel, int M, int P>
void direct_group(const float* x, int64_t m, int64_t row0, const LinearOutput& to, int64_t panel,
                  bool more) {
  if (m == M) return direct_rows<Panel, M, P>(x, row0, to, panel, more);
  if constexpr (M > 1) direct_group<Panel, M - 1, P>(x, m, row0, to, panel, more);
}

// p <= P panels side by side, all rows while they are in the cache.
template <typename Panel, int P>
void direct_panels_of(const float* x, int64_t m, const LinearOutput& to, int64_t panel, int64_t p,
                      bool more) {
  if constexpr (P > 1)
    if (p < P) return direct_panels_of<Panel, P - 1>(x, m, to, panel, p, more);
  const int64_t parts = (m + kDirectRows - 1) / kDirectRows;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t row0 = m * i / parts, rows = m * (i + 1) / parts - row0;
    direct_group<Panel, direct_rows_of(P), P>(x + row0 * to.weight.k, rows, row0, to, panel, more);
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
void direct_of(const float* x, int64_t m, const LinearOutput& to, int64_t panel, int64_t count) {
  const int64_t most = m == 1 ? kSingleRowPanels : kDirectPanels;
  const int64_t groups = (count + most - 1) / most;
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t first = count * i / groups, last = count * (i + 1) / groups;
    if (i == 0) fetch_heads<Panel>(to, panel, last);
    direct_panels_of<Panel, kSingleRowPanels>(x, m, to, panel + first, last - first,
                                              i + 1 < groups);
  }
}

void direct(const float* x, int64_t m, const LinearOutput& to, int64_t panel, int64_t count) {
  with_panel(to.weight.format, [&](auto tag) {
    using Panel = typename decltype(tag)::type;
    direct_of<Panel>(x, m, to, panel, count);
  });
}

template <typename Panel>
void widen_leaf(const uint8_t* base, int64_t k0, int64_t k1, float* out) {
  Panel reader{};
  reader.base = base;
  int64_t kk = k0;
  for (; kk + 8 <= k1; kk += 8) {
    reader.seek(kk);
    eight_times([&](auto j) __attribute__((always_inline)) {
      constexpr int J = decltype(j)::value;
      const Pair w = reader.template get<J>();
      store(out + (kk - k0 + J) * 32, w.lo);
      store(out + (kk - k0 + J) * 32 + 16, w.hi);
    });
  }
  if constexpr (Panel::kAnyK) {
    for (; kk < k1; ++kk) {
      reader.seek(kk);
      const Pair w = reader.template get<0>();
      store(out + (kk - k0) * 32, w.lo);
      store(out + (kk - k0) * 32 + 16, w.hi);
    }
  }
}

// One leaf of a register tile: a [k][M], b [k][32], totals [M][32].
template <int M>
void tile(const float* a, const float* b, int64_t k, float* totals, bool first) {
  constexpr int V = kTileVectors;
  for (int part = 0; part < 2; part += V) {
    f32x16 sum[M][V];
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] = zero();
    for (int64_t kk = 0; kk < k; ++kk) {
      f32x16 w[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) w[v] = load(b + kk * 32 + (part + v) * 16);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) {
        const f32x16 x = splat(a[kk * M + m]);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[m][v] = fma(x, w[v], sum[m][v]);
      }
    }
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) {
        float* total = totals + m * 32 + (part + v) * 16;
        store(total, first ? sum[m][v] : load(total) + sum[m][v]);
      }
  }
}

template <int M>
void tile_of(int64_t m, const float* a, const float* b, int64_t k, float* totals, bool first) {
  if (m == M) return tile<M>(a, b, k, totals, first);
  if constexpr (M > 1) tile_of<M - 1>(m, a, b, k, totals, first);
}

template <typename Panel>
void tiles_of(const RowTiles& x, const LinearOutput& to, int64_t panel, float* scratch,
              float* totals) {
  const uint8_t* base = to.weight.data + panel * panel_bytes<Panel>(to.weight.k);
  for (int64_t k0 = x.k0; k0 < x.k1; k0 += kLeaf) {
    const int64_t k1 = smaller(x.k1, k0 + kLeaf);
    const float* b = scratch;
    if constexpr (__is_same(Panel, F32Panel))
      b = reinterpret_cast<const float*>(base) + k0 * 32;
    else
      widen_leaf<Panel>(base, k0, k1, scratch);
    for (int64_t row = 0; row < x.rows; row += kTileRows) {
      const int64_t rows = smaller(kTileRows, x.rows - row);
      const float* a = x.data + row * (x.k1 - x.k0) + (k0 - x.k0) * rows;
      tile_of<kTileRows>(rows, a, b, k1 - k0, totals + row * 32, k0 == 0);
    }
  }
  if (to.weight.k == 0) std::memset(totals, 0, static_cast<size_t>(x.rows) * 32 * sizeof(float));
  if (x.k1 == to.weight.k) finish(totals, 32, x.rows, x.row0, to, panel);
}

void tiles(const RowTiles& x, const LinearOutput& to, int64_t panel, float* scratch,
           float* totals) {
  with_panel(to.weight.format, [&](auto tag) {
    using Panel = typename decltype(tag)::type;
    tiles_of<Panel>(x, to, panel, scratch, totals);
  });
}

void widen(const void* x, DType dtype, int64_t count, float* out) {
  if (dtype == DType::F32) {
    std::memcpy(out, x, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const uint16_t* in = static_cast<const uint16_t*>(x);
  for (int64_t i = 0; i < count; i += 16)
    store_n(out + i, load_n(in + i, static_cast<int>(smaller(16, count - i))),
            static_cast<int>(smaller(16, count - i)));
}

void pack_tile(const void* x, DType dtype, int64_t rows, int64_t k, int64_t stride, float* out) {
  alignas(64) float part[kTileRows][16];
  for (int64_t kk = 0; kk < k; kk += 16) {
    const int count = static_cast<int>(smaller(16, k - kk));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = row * stride + kk;
      const f32x16 v = dtype == DType::F32 ? load_n(static_cast<const float*>(x) + at, count)
                                           : load_n(static_cast<const uint16_t*>(x) + at, count);
      store(part[row], v);
    }
    for (int i = 0; i < count; ++i)
      for (int64_t row = 0; row < rows; ++row) out[(kk + i) * rows + row] = part[row][i];
  }
}

void weight_row(const PackedMatrix& weight, int64_t row, float* out) {
  with_panel(weight.format, [&](auto tag) {
    using Panel = typename decltype(tag)::type;
    alignas(64) float leaf[kLeaf * 32];
    const uint8_t* base = weight.data + row / kPanelColumns * panel_bytes<Panel>(weight.k);
    for (int64_t k0 = 0; k0 < weight.k; k0 += kLeaf) {
      const int64_t k1 = smaller(weight.k, k0 + kLeaf);
      widen_leaf<Panel>(base, k0, k1, leaf);
      for (int64_t kk = k0; kk < k1; ++kk) out[kk] = leaf[(kk - k0) * 32 + row % kPanelColumns];
    }
  });
}

}  // namespace

const LinearKernels& linear_kernels() {
  static const LinearKernels table = {kTileRows, kMostDirectRows, pack_tile, widen,
                                      direct,    tiles,           weight_row};
  return table;
}

}  // namespace bitlens::BITLENS_ISA_NS
