// linear (docs/numerics.md): one vector lane is one output, a leaf of 256 k is summed in the order
// of the activations' dtype, leaf sums are added in ascending order, then the bias, then one
// rounding. GEMV and GEMM read the same panels and run the same chains, so they give the same bits.
#include "linear_panels.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

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

int64_t packed_words(int64_t rows, int64_t k) { return (k + kLeaf - 1) / kLeaf * rows * kLeaf; }

void pack_rows(const void* x, DType dtype, int64_t rows, int64_t k, int64_t stride,
               uint32_t* words) {
  float* out = reinterpret_cast<float*>(words);
  for (int64_t k0 = 0; k0 < k; k0 += kLeaf) {
    const int64_t depth = smaller(k - k0, kLeaf);
    for (int64_t row = 0; row < rows; ++row, out += kLeaf) {
      for (int64_t kk = 0; kk < depth; kk += 16) {
        const int64_t at = row * stride + k0 + kk;
        const int count = static_cast<int>(smaller(16, depth - kk));
        store(out + kk, dtype == DType::F32 ? load_n(static_cast<const float*>(x) + at, count)
                                            : load_n(static_cast<const uint16_t*>(x) + at, count));
      }
    }
  }
}

template <Order kOrder>
void direct(const uint32_t* words, int64_t m, const LinearOutput& to, int64_t panel,
            int64_t count) {
  with_panel(to.weight.format, [&](auto tag) {
    using Panel = typename decltype(tag)::type;
    direct_panels<Panel, kOrder>(reinterpret_cast<const float*>(words), m, to, panel, count);
  });
}

template <typename Panel>
void widen_leaf(const uint8_t* base, int64_t k0, int64_t k1, float* out) {
  Panel reader{};
  reader.base = base;
  auto put = [&](int64_t kk, auto j) __attribute__((always_inline)) {
    constexpr int J = decltype(j)::value;
    const Pair w = reader.template get<J>();
    store(out + (kk - k0 + J) * 32, w.lo);
    store(out + (kk - k0 + J) * 32 + 16, w.hi);
  };
  int64_t kk = k0;
  for (; kk + 8 <= k1; kk += 8) {
    reader.seek(kk);
    eight_times([&](auto j) __attribute__((always_inline)) { put(kk, j); });
  }
  if constexpr (Panel::kAnyK) {
    for (; kk < k1; kk += 2) {
      reader.seek(kk);
      put(kk, Index<0>{});
      if (kk + 1 < k1) put(kk, Index<1>{});
    }
  }
}

template <typename Panel, Order kOrder>
void tiles_of(const RowTiles& x, const LinearOutput& to, int64_t panel, float* scratch,
              float* totals) {
  constexpr int kRows = tile_rows(kOrder);
  const uint8_t* base = to.weight.data + panel * panel_bytes<Panel>(to.weight.k);
  for (int64_t k0 = x.k0; k0 < x.k1; k0 += kLeaf) {
    const int64_t k1 = smaller(x.k1, k0 + kLeaf);
    const float* b = scratch;
    if constexpr (__is_same(Panel, F32Panel))
      b = reinterpret_cast<const float*>(base) + k0 * 32;
    else
      widen_leaf<Panel>(base, k0, k1, scratch);
    const NextLeaf<Panel> next(base, to.weight.k, x, k0, kRows);
    for (int64_t row = 0; row < x.rows; row += kRows) {
      next.fetch_part(row / kRows);
      const int64_t rows = smaller(kRows, x.rows - row);
      const uint32_t* words = x.words + packed_words(row, x.k1 - x.k0) + (k0 - x.k0) * rows;
      const float* a = reinterpret_cast<const float*>(words);
      tile_of<Panel, kOrder, kRows>(rows, a, b, k1 - k0, totals + row * 32, k0 == 0);
    }
  }
  finish_tiles(totals, x, to, panel);
}

template <Order kOrder>
void tiles(const RowTiles& x, const LinearOutput& to, int64_t panel, float* scratch,
           float* totals) {
  with_panel(to.weight.format, [&](auto tag) {
    using Panel = typename decltype(tag)::type;
    tiles_of<Panel, kOrder>(x, to, panel, scratch, totals);
  });
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

template <Order kOrder>
constexpr LinearKernels kTable = {tile_rows(kOrder), kMostDirectRows, packed_words, pack_rows,
                                  direct<kOrder>,    tiles<kOrder>,   weight_row};

}  // namespace

const LinearKernels& linear_kernels(Order order) {
  return order == Order::kChain ? kTable<Order::kChain> : kTable<Order::kPairs>;
}

}  // namespace bitlens::BITLENS_ISA_NS
