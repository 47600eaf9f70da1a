// linear for bf16 activations and bf16 weights by vdpbf16ps, which adds the products of two k of
// the same parity as the chains of isa/leaf_sums.h do, so the bits are the same. Where an exponent
// is too small for that (csrc/cpu/bf16_pairs.h), two FMAs take its place.
#include "../bf16_pairs.h"
#include "../isa/linear_panels.h"

namespace bitlens::avx512_bf16 {
namespace {

// Two words of neighbouring pairs, (k, k + 1) and (k + 2, k + 3), become one of even and one of odd
// k.
inline i32x16 even_word(i32x16 first, i32x16 second) {
  return {_mm512_mask_blend_epi16(0x55555555u, first.v, _mm512_srli_epi32(second.v, 16))};
}
inline i32x16 odd_word(i32x16 first, i32x16 second) {
  return {_mm512_mask_blend_epi16(0x55555555u, _mm512_slli_epi32(first.v, 16), second.v)};
}

// A word is two k of the same parity. kFused: vdpbf16ps, else the two FMAs that it stands for.
template <bool kFused>
struct PairPanel {
  using Word = uint32_t;
  using Lanes = i32x16;
  static constexpr int64_t kPerWord = 2;
  static constexpr int64_t kHeaderBytes = kPairHeaderBytes;
  static constexpr int64_t kWholeK = kPairWholeK;
  static constexpr int64_t kStepK = kPairWholeK;
  static constexpr bool kAnyK = true;
  static constexpr int kHeldVectors = 0;
  static constexpr int64_t kBytesPerWord = 128;
  const uint8_t* base;
  const uint8_t* at;
  inline void seek(int64_t word) { at = base + kHeaderBytes + word * 128; }
  template <int J>
  inline Columns<Lanes> get() const {
    const uint8_t* two = at + J / 2 * 256;
    return {word<J>(load_int(two), load_int(two + 128)),
            word<J>(load_int(two + 64), load_int(two + 192))};
  }
  template <int J>
  static inline Lanes word(i32x16 first, i32x16 second) {
    return J % 2 == 0 ? even_word(first, second) : odd_word(first, second);
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

constexpr int kRows = tile_rows(Order::kPairs);
constexpr int64_t kLeafPairs = kLeaf / 2;
constexpr int64_t kHeaderWords = kPairHeaderBytes / 4;

int64_t packed_words(int64_t rows, int64_t k) {
  return kHeaderWords + (k + kLeaf - 1) / kLeaf * rows * kLeafPairs;
}

// 32 activations, the even k before the odd of every four: the earlier of a word's two k is high.
inline __m512i pair_parities(__m512i raw) {
  const __m128i four = _mm_set_epi8(11, 10, 15, 14, 9, 8, 13, 12, 3, 2, 7, 6, 1, 0, 5, 4);
  return _mm512_shuffle_epi8(raw, _mm512_broadcast_i32x4(four));
}

// A header with the least exponent, then [leaves][rows][words of a leaf].
void pack_rows(const void* x, DType, int64_t rows, int64_t k, int64_t stride, uint32_t* words) {
  const uint16_t* in = static_cast<const uint16_t*>(x);
  put_exponent(words, in, rows, k, stride);
  uint32_t* out = words + kHeaderWords;
  for (int64_t k0 = 0; k0 < k; k0 += kLeaf) {
    const int64_t depth = smaller(k - k0, kLeaf);
    for (int64_t row = 0; row < rows; ++row, out += kLeafPairs) {
      for (int64_t kk = 0; kk < depth; kk += 32) {
        const uint64_t left = static_cast<uint64_t>(depth - kk);
        const __mmask32 here = left < 32 ? (1u << left) - 1u : ~0u;
        const __m512i raw = _mm512_maskz_loadu_epi16(here, in + row * stride + k0 + kk);
        _mm512_storeu_si512(out + kk / 2, pair_parities(raw));
      }
    }
  }
}

void direct(const uint32_t* words, int64_t m, const LinearOutput& to, int64_t panel,
            int64_t count) {
  const uint32_t* x = words + kHeaderWords;
  const int64_t bytes = panel_bytes<PairPanel<true>>(to.weight.k);
  int32_t w_exponent = kNoExponent;
  for (int64_t i = panel; i < panel + count; ++i)
    w_exponent = lesser(w_exponent, read_exponent(to.weight.data + i * bytes));
  if (read_exponent(words) + w_exponent >= kLeastExponentSum)
    return direct_panels<PairPanel<true>, Order::kPairs>(x, m, to, panel, count);
  for (int64_t i = panel; i < panel + count; ++i)
    for (int64_t row = 0; row < m; ++row)
      direct_rows<PairPanel<false>, Order::kPairs, 1, 1>(x + row * kLeafPairs, m, row, to, i,
                                                         false);
}

// The pairs of a leaf, `words` of them, as words of one parity.
const uint32_t* part_parities(const uint32_t* pairs, int64_t words, float* scratch) {
  uint32_t* out = reinterpret_cast<uint32_t*>(scratch);
  for (int64_t at = 0; at < words * 32; at += 64) {
    for (int64_t half = at; half < at + 32; half += 16) {
      const i32x16 first = load_int(pairs + half), second = load_int(pairs + half + 32);
      _mm512_storeu_si512(out + half, even_word(first, second).v);
      _mm512_storeu_si512(out + half + 32, odd_word(first, second).v);
    }
  }
  return out;
}

void tiles(const RowTiles& x, const LinearOutput& to, int64_t panel, float* scratch,
           float* totals) {
  using Panel = PairPanel<true>;
  const uint8_t* base = to.weight.data + panel * panel_bytes<Panel>(to.weight.k);
  const int32_t w_exponent = read_exponent(base);
  const int64_t tile_words = packed_words(kRows, x.k1 - x.k0);
  for (int64_t k0 = x.k0; k0 < x.k1; k0 += kLeaf) {
    const int64_t words = words_of<Panel>(smaller(kLeaf, x.k1 - k0));
    const uint32_t* pairs = reinterpret_cast<const uint32_t*>(base + kPairHeaderBytes);
    const uint32_t* b = part_parities(pairs + k0 / 2 * 32, words, scratch);
    const NextLeaf<Panel> next(base, to.weight.k, x, k0, kRows);
    for (int64_t row = 0; row < x.rows; row += kRows) {
      next.fetch_part(row / kRows);
      const int64_t rows = smaller(kRows, x.rows - row);
      const uint32_t* tile_start = x.words + row / kRows * tile_words;
      const uint32_t* a = tile_start + kHeaderWords + (k0 - x.k0) / 2 * rows;
      float* total = totals + row * 32;
      if (read_exponent(tile_start) + w_exponent >= kLeastExponentSum) {
        tile_of<Panel, Order::kPairs, kRows>(rows, a, b, words, total, k0 == 0);
        continue;
      }
      for (int64_t i = 0; i < rows; ++i)
        tile<PairPanel<false>, Order::kPairs, 1>(a + i * kLeafPairs, b, words, total + i * 32,
                                                 k0 == 0);
    }
  }
  finish_tiles(totals, x, to, panel);
}

}  // namespace

const LinearKernels& linear_kernels() {
  static const LinearKernels table = {kRows,  kMostDirectRows, packed_words, pack_rows,
                                      direct, tiles,           nullptr};
  return table;
}

bool adds_in_order() {
  // Sums whose bits tell the order, the roundings between and wider sums apart.
  NumbersToTry bf16_bits;
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
