// golden_kernels FILE: the kernels of every instruction set of this build and machine against the
// golden vectors. Exits 1 if a bit differs. tests/test_golden.py does the same through the Python
// extension; this program needs no Python, so it also runs cross-compiled.

#include "golden_kernels.h"

#include <cstdio>
#include <fstream>
#include <map>
#include <string>

#include "../cpu/dispatch.h"
#include "../cpu/threads.h"
#include "../cpu/typical.h"
#include "golden_kernels_backward.h"
#include "golden_kernels_dictionary.h"
#include "golden_kernels_training.h"
#include "golden_list.h"

namespace bitlens::spec_tests {
namespace {

// One sequence of position + 1 cached keys; the queries are those of its last `n_queries` tokens.
class Sequence {
 public:
  Sequence(const Case& c, int64_t n_queries)
      : c_(c),
        keys_(c.position + 1),
        n_queries_(n_queries),
        starts_{0, n_queries},
        past_{keys_ - n_queries},
        q_(n_queries * row(), c.act) {
    const int64_t n_pages = (keys_ + kPageKeys - 1) / kPageKeys;
    for (int64_t page = 0; page < n_pages; ++page) table_.push_back(static_cast<int32_t>(page));
    const size_t bytes = static_cast<size_t>(n_pages * kPageKeys * c.rows * c.k) * 4;
    k_pages_.assign(bytes, 0xff);  // NaN: what no key was written to must not matter
    v_pages_.assign(bytes, 0xff);
    write();
    for (int64_t i = 0; i < n_queries * row(); ++i) {
      q_.set(i, centered(stream(c.seed, 0), past_[0] * row() + i) * static_cast<float>(c.real));
    }
  }

  // Of the last query, per head: scores, pattern, z, lse. False where z differs from pattern . v.
  bool evaluate(Output* out) {
    const float scale = 1.0f / sqrtf(static_cast<float>(c_.k));
    const Attention op = {{starts_, past_, 1}, pages(), c_.n, scale, score_cap(c_), c_.window};
    Activations z(n_queries_ * row(), c_.act), unfused = z;
    std::vector<float> lse(static_cast<size_t>(n_queries_ * c_.n));
    std::vector<float> scores(static_cast<size_t>(c_.n * keys_)), pattern(scores.size());
    attention(op, q_.data(), row(), z.data(), row(), lse.data());
    const int64_t last = n_queries_ - 1;
    attention_scores(op, q_.data(), row(), &last, 1, keys_, scores.data());
    softmax(scores.data(), c_.n, keys_, pattern.data());
    bool same = true;
    if (n_queries_ == 1) {
      attention_values(op, pattern.data(), keys_, unfused.data(), row());
      same =
          memcmp(unfused.data(), z.data(), static_cast<size_t>(row()) * dtype_bytes(dtype())) == 0;
    }
    for (int64_t head = 0; head < c_.n; ++head) {
      out->floats(scores.data() + head * keys_, keys_);
      out->floats(pattern.data() + head * keys_, keys_);
      out->activations(z, last * row() + head * c_.k, c_.k);
      out->value(lse[static_cast<size_t>(last * c_.n + head)]);
    }
    return same;
  }

 private:
  DType dtype() const { return dtype_of(c_.act); }
  int64_t row() const { return static_cast<int64_t>(c_.n) * c_.k; }
  KVPages pages() {
    return {
        dtype(),         c_.rows,        c_.k, table_.data(), static_cast<int64_t>(table_.size()),
        k_pages_.data(), v_pages_.data()};
  }

  void write() {
    const int64_t stride = static_cast<int64_t>(c_.rows) * c_.k;
    Activations k = centered_rows(c_, 1, keys_ * stride), v = centered_rows(c_, 2, keys_ * stride);
    // Prefill sees every key, so only decoding can have NaN in those its window hides.
    const bool poison = poisons_masked_keys(c_) && n_queries_ == 1;
    const int64_t first = poison ? spec::first_visible(c_.position, c_.window) : 0;
    for (int64_t i = 0; i < first * stride; ++i) {
      k.set(i, spec::float_of(0x7fc00000u));
      v.set(i, spec::float_of(0x7fc00000u));
    }
    const int64_t starts[] = {0, keys_}, past[] = {0};
    kv_write({starts, past, 1}, k.data(), stride, v.data(), stride, pages());
  }

  Case c_;
  int64_t keys_, n_queries_;
  int64_t starts_[2], past_[1];
  std::vector<int32_t> table_;
  std::vector<uint8_t> k_pages_, v_pages_;
  Activations q_;
};

// Both as decoding sees it, one query, and as prefill does.
void kernel_attention(const Case& c, Output* out) {
  Output prefill;
  const bool same = Sequence(c, 1).evaluate(out);
  Sequence(c, c.position + 1).evaluate(&prefill);
  if (!same || prefill.words != out->words) out->bits(0);  // one word too many: a difference
}

void kernel_sampling(const Case& c, Output* out) {
  const float x_max = static_cast<float>(c.real);
  std::vector<uint64_t> keys, weights(static_cast<size_t>(c.n));
  std::vector<int64_t> scores(weights.size());
  for (int i = 0; i < c.n; ++i) {
    const float x = centered(stream(c.seed, 0), i) * x_max;
    keys.push_back(spec::order_key(x, static_cast<uint32_t>(c.k + i)));
  }
  const spec::NoiseKey noise = {stream(c.seed, 1).key, static_cast<uint32_t>(c.position),
                                static_cast<uint32_t>(c.flag), 0};
  sampling_terms(keys.data(), c.n, x_max, noise, weights.data(), scores.data());
  for (size_t i = 0; i < keys.size(); ++i) {
    out->bits64(keys[i]);
    out->bits64(weights[i]);
    out->bits64(static_cast<uint64_t>(scores[i]));
  }
}

void kernel_typical(const Case& c, Output* out) {
  const float x_max = static_cast<float>(c.real);
  std::vector<float> x;
  std::vector<uint64_t> keys, mass(static_cast<size_t>(c.n));
  std::vector<uint32_t> before(mass.size());
  for (int i = 0; i < c.n; ++i) {
    x.push_back(centered(stream(c.seed, 0), i) * x_max - x_max + 0.0f);  // -0 is +0
    keys.push_back(spec::order_key(x.back(), static_cast<uint32_t>(c.k + i)));
  }
  SamplingRow row{};
  row.min_weight = 1;
  const int64_t first = 0;
  const SlicedRows rows = {x.data(), c.n, c.n, static_cast<uint32_t>(c.k), &row, &first, 1};
  TypicalSums sums{};
  typical_sums(rows, &sums);
  const unsigned __int128 high = sums.weighted_gaps_high;
  const uint32_t centre = spec::typical_centre((high << 64) | sums.weighted_gaps_low, sums.mass);
  typical_before(rows, &centre, keys.data(), c.n, mass.data(), before.data());
  out->bits(centre);
  for (size_t i = 0; i < keys.size(); ++i) {
    out->bits64(mass[i]);
    out->bits(before[i]);
  }
}

using Evaluate = void (*)(const Case& c, Output* out);

// The operation as kernels; null where there is none. Reductions are inside rms_norm and softmax,
// tables come from the spec itself, and another leaf length is golden.cpp's negative control.
Evaluate kernel_of(const Case& c) {
  static const std::map<Op, Evaluate> kKernels = {
      {Op::kWiden, kernel_widen},
      {Op::kExp, kernel_elementary},
      {Op::kLog, kernel_elementary},
      {Op::kLinear, kernel_linear},
      {Op::kRmsNorm, kernel_rms_norm},
      {Op::kAdd, kernel_add},
      {Op::kRope, kernel_rope},
      {Op::kAttention, kernel_attention},
      {Op::kGatedAct, kernel_gated_act},
      {Op::kSoftmax, kernel_softmax},
      {Op::kEmbedding, kernel_embedding},
      {Op::kSampling, kernel_sampling},
      {Op::kTypical, kernel_typical},
      {Op::kStepwiseNorm, kernel_rms_norm},
      {Op::kStepwiseRope, kernel_rope},
      {Op::kStepwiseGatedAct, kernel_gated_act},
      {Op::kStepwiseScore, kernel_stepwise_score},
      {Op::kTopK, kernel_top_k},
      {Op::kAbove, kernel_above},
      {Op::kSparseDecode, kernel_sparse_decode},
      {Op::kDictionaryStep, kernel_dictionary_step},
      {Op::kTanh, kernel_elementary},
      {Op::kSoftCap, kernel_elementary},
      {Op::kScaled, kernel_scaled},
      {Op::kNormalizeBackward, kernel_normalize_backward},
      {Op::kRmsNormBackward, kernel_rms_norm_backward},
      {Op::kSoftmaxBackward, kernel_softmax_backward},
      {Op::kGatedActBackward, kernel_gated_act_backward},
      {Op::kSoftCapBackward, kernel_soft_cap_backward},
      {Op::kFold, kernel_fold},
      {Op::kCrossEntropy, kernel_cross_entropy},
      {Op::kTokenLogprob, kernel_token_logprob},
      {Op::kLinearWeightGrad, kernel_weight_grad},
      {Op::kBiasGrad, kernel_weight_grad},
      {Op::kNormWeightGrad, kernel_weight_grad},
      {Op::kEmbedGrad, kernel_weight_grad},
  };
  if (c.op == Op::kRound) return c.out == Format::kBF16 ? kernel_round : nullptr;
  const auto found = kKernels.find(c.op);
  return found == kKernels.end() ? nullptr : found->second;
}

std::vector<std::string> stored_lines(const char* path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with('#')) lines.push_back(line);
  }
  return lines;
}

// Negative control: the stored bits of another leaf length or order are not those of `linear`.
bool control_differs(const Case& c, const std::string& stored) {
  Output out;
  kernel_linear(c, &out);
  return line_of(c, out.words) != stored;
}

int check(const char* path) {
  const std::vector<std::string> stored = stored_lines(path);
  const std::vector<Case> cases = golden_list();
  if (stored.size() != cases.size()) {
    std::fprintf(stderr, "%s has %zu cases, expected %zu\n", path, stored.size(), cases.size());
    return 1;
  }
  size_t differing = 0;
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    size_t count = 0;
    for (size_t i = 0; i < cases.size(); ++i) {
      const Evaluate evaluate = kernel_of(cases[i]);
      if (is_linear_control(cases[i].op) && !control_differs(cases[i], stored[i])) {
        std::printf("negative control failed: another leaf length or order has the same bits\n");
        return 1;
      }
      if (evaluate == nullptr) continue;
      ++count;
      Output out;
      evaluate(cases[i], &out);
      const std::string computed = line_of(cases[i], out.words);
      if (computed == stored[i]) continue;
      ++differing;
      std::printf("%s\nstored   %s\ncomputed %s\n", isa.c_str(), stored[i].c_str(),
                  computed.c_str());
    }
    std::printf("%-8s %zu of %zu golden cases have kernels\n", isa.c_str(), count, cases.size());
  }
  std::printf("%zu differing lines\n", differing);
  return differing == 0 ? 0 : 1;
}

}  // namespace
}  // namespace bitlens::spec_tests

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: golden_kernels FILE\n");
    return 2;
  }
  bitlens::set_num_threads(1);
  return bitlens::spec_tests::check(argv[1]);
}
