// linear for bf16 activations and bf16 weights by vdpbf16ps, which multiplies two k at once and
// adds the products as the FMA chain of isa/linear.cpp does, so the bits are the same. Where an
// exponent is too small for that (csrc/cpu/bf16_pairs.h), two FMAs take its place.
#include "../bf16_pairs.h"
#include "../isa/linear_panels.h"

namespace bitlens::avx512_bf16 {
namespace {

// A word is two k. kFused: vdpbf16ps, else the two FMAs that it stands for.
template <bool kFused>
struct PairPanel {
  using Word = uint32_t;
  using Lanes = i32x16;
  static constexpr int64_t kPerWord = 2;
  static constexpr int64_t kHeaderBytes = kPairHeaderBytes;
  static constexpr int64_t kWholeK = 2;
  static constexpr bool kAnyK = true;
  static constexpr int64_t kBytesPerWord = 128;
  const uint8_t* base;
  const uint8_t* at;
  inline void seek(int64_t word) { at = base + kHeaderBytes + word * 128; }
  template <int J>
  inline Columns<Lanes> get() const {
    return {load_int(at + J * 128), load_int(at + J * 128 + 64)};
  }
  static inline Lanes load_lanes(const Word* p) { return load_int(p); }
  static inline f32x16 multiply_add(Word x, Lanes w, f32x16 sum) {
    const i32x16 a = splat_int(static_cast<int32_t>(x));
    if constexpr (kFused) return {_mm512_dpbf16_ps(sum.v, (__m512bh)a.v, (__m512bh)w.v)};
    const i32x16 high = splat_int(-65536);
    sum = fma(from_bits(a & high), from_bits(w & high), sum);
    return fma(from_bits(shift_left<16>(a)), from_bits(shift_left<16>(w)), sum);
  }
};

constexpr int64_t kLeafPairs = kLeaf / 2;
constexpr int64_t kHeaderWords = kPairHeaderBytes / 4;

int64_t packed_words(int64_t rows, int64_t k) {
  return kHeaderWords + (k + kLeaf - 1) / kLeaf * rows * kLeafPairs;
}

inline int32_t read_exponent(const void* header) {
  int32_t exponent;
  std::memcpy(&exponent, header, sizeof(exponent));
  return exponent;
}

inline int32_t lesser(int32_t a, int32_t b) { return a < b ? a : b; }

// A header with the least exponent, then [leaves][rows][pairs of a leaf].
void pack_rows(const void* x, DType, int64_t rows, int64_t k, int64_t stride, uint32_t* words) {
  const uint16_t* in = static_cast<const uint16_t*>(x);
  int32_t exponent = kNoExponent;
  for (int64_t row = 0; row < rows; ++row)
    exponent = lesser(exponent, least_exponent(in + row * stride, k));
  std::memcpy(words, &exponent, sizeof(exponent));
  uint32_t* out = words + kHeaderWords;
  for (int64_t k0 = 0; k0 < k; k0 += kLeaf) {
    const int64_t depth = smaller(k - k0, kLeaf);
    for (int64_t row = 0; row < rows; ++row, out += kLeafPairs) {
      for (int64_t kk = 0; kk < depth; kk += 32) {
        const uint64_t left = static_cast<uint64_t>(depth - kk);
        const __mmask32 here = left < 32 ? (1u << left) - 1u : ~0u;
        const __m512i raw = _mm512_maskz_loadu_epi16(here, in + row * stride + k0 + kk);
        _mm512_storeu_si512(out + kk / 2, _mm512_rol_epi32(raw, 16));
      }
    }
  }
}

void direct(const uint32_t* words, int64_t m, const LinearOutput& to, int64_t panel,
            int64_t count) {
  const int32_t x_exponent = read_exponent(words);
  const uint32_t* x = words + kHeaderWords;
  const int64_t bytes = panel_bytes<PairPanel<true>>(to.weight.k);
  int32_t w_exponent = kNoExponent;
  for (int64_t i = panel; i < panel + count; ++i)
    w_exponent = lesser(w_exponent, read_exponent(to.weight.data + i * bytes));
  if (x_exponent + w_exponent >= kLeastExponentSum)
    return direct_panels<PairPanel<true>>(x, m, to, panel, count);
  for (int64_t i = panel; i < panel + count; ++i)
    for (int64_t row = 0; row < m; ++row)
      direct_rows<PairPanel<false>, 1, 1>(x + row * kLeafPairs, m, row, to, i, false);
}

void tiles(const RowTiles& x, const LinearOutput& to, int64_t panel, float*, float* totals) {
  using Panel = PairPanel<true>;
  const uint8_t* base = to.weight.data + panel * panel_bytes<Panel>(to.weight.k);
  const int32_t w_exponent = read_exponent(base);
  const int64_t tile_words = packed_words(kTileRows, x.k1 - x.k0);
  for (int64_t k0 = x.k0; k0 < x.k1; k0 += kLeaf) {
    const int64_t words = (smaller(kLeaf, x.k1 - k0) + 1) / 2;
    const uint32_t* b = reinterpret_cast<const uint32_t*>(base + kPairHeaderBytes) + k0 / 2 * 32;
    const NextLeaf<Panel> next(base, to.weight.k, x, k0);
    for (int64_t row = 0; row < x.rows; row += kTileRows) {
      next.fetch_part(row / kTileRows);
      const int64_t rows = smaller(kTileRows, x.rows - row);
      const uint32_t* tile_start = x.words + row / kTileRows * tile_words;
      const uint32_t* a = tile_start + kHeaderWords + (k0 - x.k0) / 2 * rows;
      float* total = totals + row * 32;
      if (read_exponent(tile_start) + w_exponent >= kLeastExponentSum) {
        tile_of<Panel, kTileRows>(rows, a, b, words, total, k0 == 0);
        continue;
      }
      for (int64_t i = 0; i < rows; ++i)
        tile<PairPanel<false>, 1>(a + i * kLeafPairs, b, words, total + i * 32, k0 == 0);
    }
  }
  finish_tiles(totals, x, to, panel);
}

}  // namespace

const LinearKernels& linear_kernels() {
  static const LinearKernels table = {kTileRows, kMostDirectRows, packed_words, pack_rows,
                                      direct,    tiles,           nullptr};
  return table;
}

bool adds_in_order() {
  // Sums whose bits tell the order, the roundings between and wider sums apart.
  uint64_t state = 1;
  auto bf16_bits = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint32_t sign = state >> 63, exponent = 119 + (state >> 40) % 17;
    return sign << 15 | exponent << 7 | static_cast<uint32_t>(state >> 33) % 128;
  };
  for (int round = 0; round < 256; ++round) {
    alignas(64) uint32_t w[16];
    for (uint32_t& word : w) word = bf16_bits() << 16 | bf16_bits();
    const uint32_t x = bf16_bits() << 16 | bf16_bits();
    const i32x16 lanes = load_int(w);
    // Minus the first product: what is left of it is all that the second is added to.
    const f32x16 high = from_bits(lanes & splat_int(-65536));
    const f32x16 x_high = from_bits(splat_int(static_cast<int32_t>(x & 0xffff0000u)));
    const f32x16 sum = negate(x_high * high) * splat(1.0f + 0x1p-20f);
    const f32x16 fused = PairPanel<true>::multiply_add(x, lanes, sum);
    const f32x16 chain = PairPanel<false>::multiply_add(x, lanes, sum);
    if (_mm512_cmpneq_epi32_mask(bits(fused).v, bits(chain).v) != 0) return false;
  }
  return true;
}

}  // namespace bitlens::avx512_bf16
