// sanitized: every kernel of the library once over ragged shapes, in buffers of exactly the size
// that it may touch, for a sanitizer to watch. Prints a checksum of each result, which must not
// depend on the order of threads.
#include <cstdio>
#include <vector>

#include "cuda/library.h"
#include "cuda/panels.h"

namespace {

using bitlens::cuda::Entry;
using bitlens::cuda::Sampled;
using bitlens::cuda::SampleEdits;
using bitlens::cuda::SampleRow;
using Floats = std::vector<float>;
using Halves = std::vector<uint16_t>;

uint32_t g_state = 1;
uint32_t next() { return g_state = g_state * 1664525u + 1013904223u; }
float number() { return static_cast<float>(static_cast<int32_t>(next()) >> 8) * 0x1p-23f; }

Floats floats(int64_t n) {
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = number();
  return x;
}

Halves halves(int64_t n) {
  Halves x(static_cast<size_t>(n));
  for (uint16_t& v : x) v = bitlens::spec::round_bf16(number());
  return x;
}

int g_failures = 0;
void* const g_stream = &g_failures;  // the caller's

template <typename T>
void show(const char* name, int code, const std::vector<T>& result) {
  if (code != 0) ++g_failures, std::printf("%s: %s\n", name, blc_error_text(code));
  const auto* bytes = reinterpret_cast<const unsigned char*>(result.data());
  uint64_t sum = 14695981039346656037u;
  for (size_t i = 0; i < result.size() * sizeof(T); ++i) sum = (sum ^ bytes[i]) * 1099511628211u;
  std::printf("%s %016llx\n", name, static_cast<unsigned long long>(sum));
}

void norms_and_elements() {
  const int64_t rows = 2, d = 300;
  Floats x = floats(rows * d), w = floats(d), y(x.size()), sum(x.size()), scale(rows), n(x.size());
  Halves residual = halves(rows * d), h(x.size());
  show("rms_norm",
       blc_rms_norm(x.data(), d, 0, residual.data(), w.data(), rows, 1, d, 1e-5f, 1, h.data(), d, 1,
                    sum.data(), scale.data(), n.data(), g_stream),
       h);
  show("normalize", blc_normalize(h.data(), 1, scale.data(), rows, d, y.data(), g_stream), y);
  show("norm_weight", blc_norm_weight(y.data(), w.data(), rows, d, h.data(), 1, g_stream), h);
  show("add", blc_add(x.data(), 0, h.data(), 1, rows * d, y.data(), g_stream), y);
  show("cast", blc_cast(x.data(), 0, rows * d, h.data(), 1, g_stream), h);
  show("scaled", blc_scaled(h.data(), 1, rows * d, 0.3f, y.data(), 0, g_stream), y);
  show("scale_scores", blc_scale_scores(x.data(), 0.3f, rows * d, h.data(), 1, g_stream), h);
  show("soft_cap", blc_soft_cap(x.data(), rows * d, 2.0f, y.data(), g_stream), y);
  show("gated_act",
       blc_gated_act(1, h.data(), d, h.data(), d, rows, d, 1, 1, residual.data(), d, g_stream),
       residual);
}

void softmaxes() {
  const int64_t rows = 3, n = 270;
  Floats x = floats(rows * n), y(x.size()), one(rows), mean(1);
  std::vector<int64_t> targets = {5, -100, 269};
  int bad = 0;
  show("softmax", blc_softmax(x.data(), rows, n, y.data(), g_stream), y);
  show("log_softmax", blc_log_softmax(x.data(), rows, n, y.data(), g_stream), y);
  show("logsumexp", blc_logsumexp(x.data(), rows, n, one.data(), g_stream), one);
  show("cross_entropy",
       blc_cross_entropy(x.data(), 0, targets.data(), rows, n, -100, 0.1f, one.data(), &bad,
                         mean.data(), g_stream),
       mean);
}

void derivatives() {
  const int64_t rows = 2, d = 300, queries = 3, heads = 4, kv_heads = 2, keys = 70, d_head = 10;
  const Floats dy = floats(rows * d), x = floats(rows * d), w = floats(d), scale = {0.5f, 2.0f};
  Floats dx(dy.size()), dscale(rows);
  show("normalize_backward",
       blc_normalize_backward(dy.data(), x.data(), scale.data(), rows, d, dx.data(), dscale.data(),
                              g_stream),
       dscale);
  show("rms_scale_backward",
       blc_rms_scale_backward(scale.data(), x.data(), scale.data(), rows, d, dx.data(), g_stream),
       dx);
  const Halves gate = halves(rows * d), up = halves(rows * d);
  show("rms_norm_backward",
       blc_rms_norm_backward(gate.data(), 1, x.data(), 0, w.data(), rows, d, 1e-5f, dx.data(),
                             g_stream),
       dx);
  show("softmax_backward", blc_softmax_backward(x.data(), dy.data(), rows, d, dx.data(), g_stream),
       dx);
  show("soft_cap_backward",
       blc_soft_cap_backward(dy.data(), x.data(), rows * d, 2.0f, dx.data(), g_stream), dx);
  Halves dgate(gate.size()), dup(gate.size());
  show("gated_act_backward",
       blc_gated_act_backward(1, gate.data(), up.data(), gate.data(), rows * d, 1, dgate.data(),
                              dup.data(), g_stream),
       dup);
  const Floats weight = floats(queries * heads * keys);
  const Halves q = halves(queries * heads * d_head);
  Floats sums(static_cast<size_t>(keys * kv_heads * d_head));
  show("attention_key_sums",
       blc_attention_key_sums(weight.data(), q.data(), 1, queries, heads, kv_heads, keys, d_head,
                              sums.data(), g_stream),
       sums);
}

// Panels of n outputs.
std::vector<uint8_t> weights(int format, int64_t n, int64_t k) {
  const int64_t bytes = bitlens::cuda::panel_bytes(static_cast<bitlens::spec::Format>(format), k);
  std::vector<uint8_t> panels(static_cast<size_t>(bytes * ((n + 31) / 32)));
  for (uint8_t& b : panels) b = static_cast<uint8_t>(next() >> 24 & 0x3f);
  return panels;
}

void products() {
  for (int format = 0; format < 6; ++format) {
    const int64_t n = 40, k = 288;
    const std::vector<uint8_t> panels = weights(format, n, k);
    const Floats bias = floats(n);
    for (const int64_t m : {1, 3, 9}) {
      const Halves x = halves(m * k);
      Floats y(static_cast<size_t>(m * n));
      show("linear",
           blc_linear(x.data(), 1, m, k, k, panels.data(), format, n, bias.data(), y.data(), 0, n,
                      g_stream),
           y);
    }
    const std::vector<int64_t> tokens = {39, 0, 32};
    Floats rows(static_cast<size_t>(3 * k));
    show("embedding",
         blc_embedding(tokens.data(), 3, panels.data(), format, k, 2.0f, rows.data(), 0, g_stream),
         rows);
  }
}

void attention() {
  const int64_t heads = 4, kv_heads = 2, d = 10, stride = (heads + 2 * kv_heads) * d, keys = 70;
  const std::vector<int64_t> starts = {0, 1, 6}, past = {69, 0}, positions = {69, 0, 1, 2, 3, 4};
  const std::vector<int32_t> table = {2, 0, 1, 1};
  const Floats cos = floats(keys * d / 2), sin = floats(keys * d / 2);
  Floats qkv = floats(6 * stride), q = floats(6 * heads * d), z(q.size());
  Floats k_pages = floats(3 * kv_heads * d * 64), v_pages = floats(3 * kv_heads * d * 64);
  show("rope",
       blc_rope(q.data(), 0, 6, heads, d, heads * d, positions.data(), cos.data(), sin.data(), 0,
                z.data(), heads * d, g_stream),
       z);
  show("rope_kv_write",
       blc_rope_kv_write(qkv.data(), 0, 6, stride, heads, cos.data(), sin.data(), 0, starts.data(),
                         past.data(), 2, kv_heads, d, table.data(), 2, k_pages.data(),
                         v_pages.data(), g_stream),
       k_pages);
  const Floats rows = floats(6 * kv_heads * d);
  show("kv_write",
       blc_kv_write(rows.data(), rows.data(), 0, 6, kv_heads * d, kv_heads * d, starts.data(),
                    past.data(), 2, kv_heads, d, table.data(), 2, k_pages.data(), v_pages.data(),
                    g_stream),
       v_pages);
  const int64_t size = blc_attention_workspace(2, 2, heads, d, keys);
  Floats workspace(static_cast<size_t>(size)), lse(6 * heads), scores(6 * heads * keys);
  show("attention",
       blc_attention(q.data(), 0, heads * d, heads, kv_heads, d, 0.3f, 2.0f, 4, 0, starts.data(),
                     past.data(), 2, 5, keys, table.data(), 2, k_pages.data(), v_pages.data(),
                     z.data(), heads * d, lse.data(), workspace.data(), size, g_stream),
       z);
  show("attention_scores",
       blc_attention_scores(q.data(), 0, heads * d, heads, kv_heads, d, 0.3f, 0.0f, 0,
                            starts.data(), past.data(), 2, 5, keys, table.data(), 2, k_pages.data(),
                            scores.data(), g_stream),
       scores);
  show("attention_values",
       blc_attention_values(scores.data(), 0, heads, kv_heads, d, 0, starts.data(), past.data(), 2,
                            5, keys, table.data(), 2, v_pages.data(), z.data(), heads * d,
                            workspace.data(), size, g_stream),
       z);
}

void sampling() {
  const int64_t n = 333;
  Floats logits = floats(3 * n), scaled(logits.size()), temperature = {1.0f, 0.7f, 1.0f};
  const std::vector<int64_t> ids = {1, 5, 332};
  const std::vector<uint32_t> counts = {1, 2, 0};
  const SampleEdits edits = {ids.data(), 3,    ids.data(), temperature.data(), 3,
                             ids.data(), 1,    ids.data(), counts.data(),      3,
                             1.2f,       0.1f, 0.1f};
  show("sample_edit", blc_sample_edit(logits.data(), n, 0, &edits, g_stream), logits);
  const std::vector<SampleRow> rows = {{1, 1, 5, 0, 0, 0, 1.0f, 1.0f, 0, 0},
                                       {2, 1, 6, 0, 0, 0, 0.5f, 0.5f, 20, 1},
                                       {3, 1ull << 40, 7, 0, 0, 0, 0.9f, 1.0f, 0, 0}};
  std::vector<Sampled> out(3);
  const std::vector<int32_t> listed = {5, 0, 1};
  std::vector<uint64_t> keys(3 * 5);
  show("sample",
       blc_sample(logits.data(), temperature.data(), rows.data(), 3, n, scaled.data(), out.data(),
                  listed.data(), 5, keys.data(), g_stream),
       out);
}

void slices() {
  using namespace bitlens::cuda;
  const int64_t n = 333, count = 2, width = 4;
  const Floats logits = floats(3 * n), temperature = {1.0f, 0.7f, 1.0f};
  Floats x(logits.size()), max(3), masked(static_cast<size_t>(count * n));
  std::vector<int32_t> bad(3);
  show("sample_prepare",
       blc_sample_prepare(logits.data(), temperature.data(), 3, n, x.data(), max.data(), bad.data(),
                          g_stream),
       x);
  std::vector<SampleRow> rows(3, {2, 1, 6, 0, 0, 0, 0.5f, 0.5f, 20, 1});
  for (size_t i = 0; i < 3; ++i) rows[i].x_max = max[i];
  const std::vector<int64_t> indices = {2, 0}, k = {4, 2};
  const SampleSlice slice = {x.data(), n, 100, rows.data(), indices.data(), count};
  std::vector<SampleScored> best(static_cast<size_t>(count * width));
  std::vector<SampleMass> mass(2);
  show("sample_perturbed",
       blc_sample_perturbed(&slice, width, nullptr, best.data(), mass.data(), g_stream), best);
  std::vector<uint64_t> keys(static_cast<size_t>(count * width)), sums(keys.size());
  show("sample_top", blc_sample_top(&slice, k.data(), width, keys.data(), g_stream), mass);
  std::vector<uint32_t> counts(keys.size()), ids(2), bins(512);
  const std::vector<uint32_t> centres = {1u << 27, 1u << 28}, order = {0x80000000u, 0};
  const std::vector<uint64_t> prefix = {0, 0};
  std::vector<uint64_t> all(512), first(keys.size(), ~uint64_t{0} >> 1);
  show("sample_before",
       blc_sample_before(&slice, centres.data(), first.data(), width, sums.data(), counts.data(),
                         g_stream),
       sums);
  show("sample_histogram",
       blc_sample_histogram(&slice, nullptr, prefix.data(), 24, all.data(), bins.data(), g_stream),
       all);
  show("sample_nth_tie", blc_sample_nth_tie(&slice, order.data(), k.data(), ids.data(), g_stream),
       ids);
  show("sample_mask",
       blc_sample_mask(&slice, centres.data(), prefix.data(), masked.data(), g_stream), masked);
  std::vector<SampleGaps> gaps(2);
  show("sample_typical_sums", blc_sample_typical_sums(&slice, gaps.data(), g_stream), gaps);
}

// Features in ranges of two tiles, of which some rows have more candidates than there is room for.
void encoding(int format) {
  const int64_t rows = 37, n = 300, k = 7, d = 270, ranges = 3, capacity = k + 64;
  const Floats x = floats(rows * d), bias = floats(n), thresholds(n, 1.0f);
  const std::vector<uint8_t> w = weights(format, n, d);
  std::vector<Entry> entries(rows * ranges * capacity), above(rows * ranges * 9);
  std::vector<int32_t> counts(rows * ranges), indices(rows * k);
  std::vector<uint32_t> tickets((rows + 31) / 32);
  Floats values(rows * k);
  show("encode_top_k",
       blc_encode_top_k(x.data(), rows, d, w.data(), format, n, bias.data(), k, ranges, capacity,
                        entries.data(), counts.data(), tickets.data(), values.data(),
                        indices.data(), g_stream),
       indices);
  show("encode_above",
       blc_encode_above(x.data(), rows, d, w.data(), format, n, bias.data(), thresholds.data(),
                        ranges, 9, above.data(), counts.data(), g_stream),
       counts);
}

void dictionaries() {
  const int64_t rows = 3, n = 300, k = 7, d = 270;
  const Floats x = floats(rows * n), table = floats(n * d), bias = floats(d);
  Floats values(rows * k), out(rows * d);
  std::vector<int32_t> indices(rows * k);
  show("top_k", blc_top_k(x.data(), rows, n, k, values.data(), indices.data(), g_stream), indices);
  const std::vector<int64_t> starts = {0, k, k, 3 * k};
  Floats active = floats(rows * k);
  show("weighted_sums",
       blc_weighted_sums(active.data(), indices.data(), starts.data(), rows, table.data(), d,
                         bias.data(), out.data(), g_stream),
       out);
  show("gathered_dots",
       blc_gathered_dots(out.data(), indices.data(), starts.data(), rows, starts.back(),
                         table.data(), d, active.data(), g_stream),
       active);
  Floats sums(rows);
  show("sums_of_squares", blc_sums_of_squares(out.data(), rows, d, sums.data(), g_stream), sums);
  show("unit_rows", blc_unit_rows(out.data(), rows, d, g_stream), out);
}

}  // namespace

int main() {
  host_cuda_make_current(g_stream);
  norms_and_elements();
  softmaxes();
  derivatives();
  products();
  attention();
  sampling();
  slices();
  encoding(0);
  encoding(1);
  dictionaries();
  for (int i = 0; i < blc_kernel_count(); ++i)
    if (blc_launches(i) == 0) ++g_failures, std::printf("%s never ran\n", blc_kernel_name(i));
  return g_failures != 0;
}
