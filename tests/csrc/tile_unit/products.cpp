// linear by tiles, on a model of the tile unit, against the spec: products SEED ROUNDS prints how
// many outputs were compared and how many tile products that took; a differing one ends it with 1.
#include <random>
#include <string>
#include <vector>

#include "cpu/bf16_pairs.h"
#include "cpu/bf16_products.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/threads.h"
#include "spec/linear.h"
#include "tile_unit_model.h"

namespace bitlens {

// linear() on tiles alone; of the other tables nothing is called.
const LinearKernels& many_bf16_rows() { return amx::linear_kernels(); }
const LinearKernels& few_bf16_rows() { return amx::linear_kernels(); }

const Kernels& kernels() {
  static const RowKernels rows{};
  static const AttentionKernels attention{};
  static const SamplingKernels sampling{};
  static const BackwardKernels backward{};
  static const DictionaryKernels dictionary{};
  static const TrainingKernels training{};
  static const LinearKernels& tiles = amx::linear_kernels();
  static const Kernels table = {"amx",     tiles,    tiles,    &tiles,     &tiles,  rows,
                                attention, sampling, backward, dictionary, training};
  return table;
}

namespace {

struct Numbers {
  int low, high;  // biased exponents
  double zeros, undone;
};

using Generator = std::mt19937_64;

// bf16 numbers; the second half of a row undoes the first, nearly, where `undone` says.
std::vector<uint16_t> draw(Generator& generator, const Numbers& like, int64_t rows, int64_t k) {
  std::uniform_int_distribution<int> exponent(like.low, like.high), low_bits(0, 127), coin(0, 1);
  std::uniform_real_distribution<double> chance(0.0, 1.0);
  std::vector<uint16_t> out(static_cast<size_t>(rows * k));
  for (int64_t row = 0; row < rows; ++row) {
    uint16_t* at = out.data() + row * k;
    for (int64_t i = 0; i < k; ++i) {
      at[i] = static_cast<uint16_t>(coin(generator) << 15 | exponent(generator) << 7 |
                                    low_bits(generator));
      if (chance(generator) < like.zeros) at[i] &= 0x8000;
      if (i >= k / 2 && chance(generator) < like.undone) at[i] = at[i - k / 2] ^ 0x8000;
    }
  }
  return out;
}

std::vector<float> widened(const std::vector<uint16_t>& bits) {
  std::vector<float> out;
  for (uint16_t b : bits) out.push_back(spec::widen_bf16(b));
  return out;
}

struct Problem {
  std::vector<uint16_t> x, w;
  std::vector<float> bias;
  std::vector<uint8_t> panels;
  int64_t m, n, k;

  Problem(Generator& generator, const Numbers& like_x, const Numbers& like_w, int64_t rows,
          int64_t outputs, int64_t depth)
      : x(draw(generator, like_x, rows, depth)),
        w(draw(generator, like_w, outputs, depth)),
        bias(static_cast<size_t>(outputs), 0.0f),
        panels(static_cast<size_t>(packed_bytes(Format::BF16, outputs, depth))),
        m(rows),
        n(outputs),
        k(depth) {
    pack(Format::BF16, reinterpret_cast<const uint8_t*>(w.data()), n, k, panels.data());
  }

  std::vector<float> by_tiles() const {
    std::vector<float> out(static_cast<size_t>(m * n), -1.0f);
    const LinearOutput to = {
        {panels.data(), Format::BF16, n, k}, bias.data(), out.data(), DType::F32, n};
    linear(x.data(), DType::BF16, m, k, k, &to, 1);
    return out;
  }

  std::vector<float> by_spec(spec::Order order) const {
    const std::vector<float> xs = widened(x), ws = widened(w);
    std::vector<float> out;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        out.push_back(spec::linear(xs.data() + i * k, ws.data() + j * k, k,
                                   &bias[static_cast<size_t>(j)], order, spec::Format::kF32));
    return out;
  }
};

int64_t differing(const std::vector<float>& a, const std::vector<float>& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool nan = std::isnan(a[i]) && std::isnan(b[i]);
    count += !nan && spec::bits_of(a[i]) != spec::bits_of(b[i]);
  }
  return count;
}

struct Tally {
  int64_t compared = 0, different = 0, moved_by_order = 0;
};

void compare(const Problem& problem, Tally* tally) {
  const std::vector<float> tiled = problem.by_tiles();
  tally->compared += problem.m * problem.n;
  tally->different += differing(tiled, problem.by_spec(spec::Order::kPairs));
  tally->moved_by_order += differing(tiled, problem.by_spec(spec::Order::kChain));
}

constexpr Numbers kOrdinary = {119, 135, 0.0, 0.0}, kCancelling = {119, 135, 0.0, 0.7},
                  kWide = {60, 190, 0.1, 0.3}, kZeros = {120, 128, 0.5, 0.5},
                  kTiny = {1, 40, 0.1, 0.5}, kEdge = {71, 72, 0.1, 0.8},
                  kBelow = {70, 72, 0.1, 0.8}, kAny = {0, 255, 0.1, 0.0};

// Under a header that allows it, tiles flush sums that FMAs keep.
bool header_keeps_subnormal_sums() {
  Generator generator(7);
  const Numbers small = {62, 66, 0.0, 0.0};
  Problem problem(generator, small, small, 32, 32, 64);
  const std::vector<float> expected = problem.by_spec(spec::Order::kPairs);
  const int64_t before = tile_unit::products;
  if (differing(problem.by_tiles(), expected) != 0 || tile_unit::products != before) return false;
  std::memcpy(problem.panels.data(), &kNoExponent, sizeof(kNoExponent));
  return differing(problem.by_tiles(), expected) != 0 && tile_unit::products > before;
}

int run(uint64_t seed, int rounds) {
  Generator generator(seed);
  Tally tally;
  if (!amx::adds_in_order()) return std::printf("the trial at start-up fails\n"), 1;
  for (int round = 0; round < rounds; ++round) {
    set_num_threads(1 + round % 2);
    for (int64_t m : {9, 16, 17, 32, 33, 70})
      for (int64_t k : {1, 2, 30, 32, 33, 61, 63, 256, 257, 300, 576})
        compare(Problem(generator, round % 2 ? kCancelling : kOrdinary, kOrdinary, m, 35, k),
                &tally);
    for (const Numbers& x : {kOrdinary, kWide, kZeros, kTiny, kEdge, kBelow, kAny})
      for (const Numbers& w : {kOrdinary, kWide, kZeros, kTiny, kEdge, kBelow, kAny})
        compare(Problem(generator, x, w, 33, 33, 97), &tally);
  }
  compare(Problem(generator, kOrdinary, kOrdinary, 200, 33, 4100), &tally);  // depth in blocks
  compare(Problem(generator, kOrdinary, kOrdinary, 9, 33, 0), &tally);
  std::printf("%lld outputs, %lld differ, %lld differ from the other order, %lld tile products\n",
              static_cast<long long>(tally.compared), static_cast<long long>(tally.different),
              static_cast<long long>(tally.moved_by_order),
              static_cast<long long>(tile_unit::products.load()));
  if (!header_keeps_subnormal_sums()) return std::printf("the header is not what decides\n"), 1;
  return tally.different == 0 && tally.moved_by_order > tally.compared / 4 ? 0 : 1;
}

}  // namespace
}  // namespace bitlens

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: products SEED ROUNDS\n"), 2;
  return bitlens::run(std::stoull(argv[1]), std::stoi(argv[2]));
}
