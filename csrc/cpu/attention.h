#pragma once

#include "kv_pages.h"

namespace bitlens {

struct Attention {
  RaggedRows rows;
  KVPages pages;
  int64_t n_heads;
  float scale;
  float cap;       // soft cap of the scaled scores; 0: none
  int64_t window;  // 0: every key up to the query's own; else the last `window` of them
};

// Where attention leaves its insides, fp32 [rows, n_heads, n_keys]; null: nowhere. Masked keys have
// a score of -inf and a pattern of 0.
struct AttentionTaps {
  float *scores, *pattern;
  int64_t n_keys;
};

// out row = softmax(scores) v per head (csrc/spec/attention.h). q and out are rows of
// [n_heads, d_head] with strides in elements; lse [rows, n_heads] may be null. The batch's keys and
// values must be in the pages already.
void attention(const Attention& op, const void* q, int64_t q_stride, void* out, int64_t out_stride,
               float* lse, const AttentionTaps& taps = {});

// Scores of the rows in `indices`: out [n_indices, n_heads, k_total], -inf where masked.
void attention_scores(const Attention& op, const void* q, int64_t q_stride, const int64_t* indices,
                      int64_t n_indices, int64_t k_total, float* out);

// out row = pattern v per head; pattern [rows, n_heads, k_total], read only where visible.
void attention_values(const Attention& op, const float* pattern, int64_t k_total, void* out,
                      int64_t out_stride);

}  // namespace bitlens
