#include "bf16_products.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <mutex>

#include "bf16_pairs.h"
#include "dispatch.h"
#include "float_environment.h"
#include "kernels.h"
#include "linear.h"

namespace bitlens {
namespace {

struct Candidate {
  std::string isa;
  const LinearKernels* kernels;
};

// Of the sets that give the same bits, those of the widest FMAs on.
const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> found = [] {
    std::vector<Candidate> all;
    for (const std::string& isa : available_isas()) {
      const Kernels& table = kernels_of(isa);
      if (table.many_bf16 == &table.linear_bf16) all.clear();
      all.push_back({isa, table.many_bf16});
    }
    return all;
  }();
  return found;
}

// Ones, whose products take as long as any others.
class Trial {
 public:
  Trial(int64_t rows, int64_t n)
      : rows_(rows),
        x_(static_cast<size_t>(rows * kDepth), kOne),
        panels_(static_cast<size_t>(packed_bytes(Format::BF16, n, kDepth))),
        out_(static_cast<size_t>(rows * n)),
        to_{{panels_.data(), Format::BF16, n, kDepth}, nullptr, out_.data(), DType::F32, n} {
    const std::vector<uint16_t> weight(static_cast<size_t>(n * kDepth), kOne);
    pack(Format::BF16, reinterpret_cast<const uint8_t*>(weight.data()), n, kDepth, panels_.data());
  }

  // GFLOP/s of the fastest of a few runs: others may have the core in between.
  double speed(const LinearKernels& k, bool few) {
    double seconds = std::numeric_limits<double>::infinity();
    for (int run = 0; run < kRuns; ++run) {
      const auto begin = std::chrono::steady_clock::now();
      few ? multiply_few(k) : multiply_many(k);
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
      seconds = std::min(seconds, taken.count());
    }
    return 2e-9 * static_cast<double>(rows_ * to_.weight.n * kDepth) / seconds;
  }

 private:
  static constexpr int64_t kDepth = 512;
  static constexpr uint16_t kOne = 0x3f80;
  static constexpr int kRuns = 6;

  int64_t panels() const { return to_.weight.n / kPanelColumns; }

  void multiply_few(const LinearKernels& k) {
    words_.resize(static_cast<size_t>(k.packed_words(rows_, kDepth)));
    k.pack_rows(x_.data(), DType::BF16, rows_, kDepth, kDepth, words_.data());
    k.direct(words_.data(), rows_, to_, 0, panels());
  }

  void multiply_many(const LinearKernels& k) {
    const int64_t tile_words = k.packed_words(k.tile_rows, kDepth);
    words_.resize(static_cast<size_t>((rows_ + k.tile_rows - 1) / k.tile_rows * tile_words));
    for (int64_t row = 0, at = 0; row < rows_; row += k.tile_rows, at += tile_words)
      k.pack_rows(x_.data() + row * kDepth, DType::BF16, std::min(k.tile_rows, rows_ - row), kDepth,
                  kDepth, words_.data() + at);
    const RowTiles tiles = {words_.data(), rows_, 0, rows_, 0, kDepth, 1};
    scratch_.resize(static_cast<size_t>((kLeaf + rows_) * kPanelColumns));
    for (int64_t panel = 0; panel < panels(); ++panel)
      k.tiles(tiles, to_, panel, scratch_.data(), scratch_.data() + kLeaf * kPanelColumns);
  }

  const int64_t rows_;
  const std::vector<uint16_t> x_;
  std::vector<uint8_t> panels_;
  std::vector<float> out_, scratch_;
  std::vector<uint32_t> words_;
  const LinearOutput to_;
};

Bf16Products measured() {
  const FloatEnvironment environment;
  Bf16Products found;
  Trial one_row(1, 4096), many_rows(96, 256);  // 4 MB of weights; 25 MFLOP
  double few = -1.0, many = -1.0;
  for (const Candidate& candidate : candidates()) {
    const LinearKernels& k = *candidate.kernels;
    const double few_speed = k.direct == nullptr ? 0.0 : one_row.speed(k, true);
    const double many_speed = many_rows.speed(k, false);
    found.timed.push_back({candidate.isa, few_speed, many_speed});
    if (few_speed > few) few = few_speed, found.few = candidate.isa;
    if (many_speed > many) many = many_speed, found.many = candidate.isa;
  }
  return found;
}

const LinearKernels* named(const std::string& isa, bool few) {
  for (const Candidate& candidate : candidates())
    if (candidate.isa == isa && (!few || candidate.kernels->direct != nullptr))
      return candidate.kernels;
  return nullptr;
}

struct Choice {
  Bf16Products products;
  const LinearKernels* few = nullptr;
  const LinearKernels* many = nullptr;

  void take(Bf16Products found) {
    products = std::move(found);
    few = named(products.few, true);
    many = named(products.many, false);
  }
};

std::once_flag chosen;
Choice choice;

const Choice& chosen_products() {
  std::call_once(chosen, [] {
    if (candidates().size() == 1)
      choice.take({candidates()[0].isa, candidates()[0].isa, {}});
    else
      choice.take(measured());
  });
  return choice;
}

}  // namespace

const LinearKernels& few_bf16_rows() {
  const LinearKernels* forced = kernels().few_bf16;
  return forced != nullptr ? *forced : *chosen_products().few;
}

const LinearKernels& many_bf16_rows() {
  const LinearKernels* forced = kernels().many_bf16;
  return forced != nullptr ? *forced : *chosen_products().many;
}

const Bf16Products& bf16_products() { return chosen_products().products; }

bool choose_bf16_products(const std::string& few, const std::string& many) {
  if (named(few, true) == nullptr || named(many, false) == nullptr) return false;
  bool taken = false;
  std::call_once(chosen, [&] {
    choice.take({few, many, {}});
    taken = true;
  });
  return taken;
}

}  // namespace bitlens
