// A transformer block as one call: the operations of model/block.py in the same order, on the same
// kernels. It exists because a decoded token otherwise spends more time in Python than in
// arithmetic.
#pragma once

#include <array>

#include "kv_pages.h"
#include "linear_kernels.h"
#include "row_kernels.h"

namespace bitlens {

// A projection; bias may be null.
struct Projection {
  PackedMatrix weight;
  const float* bias;
};

// Weights and shape of one block. A null norm is one the architecture does not have.
struct BlockWeights {
  const float *ln1, *ln2;
  const float *ln1_post, *ln2_post;  // sandwich norms [d_model]
  const float *q_norm, *k_norm;      // [d_head], before RoPE
  Projection q, k, v, o, gate, up, down;
  int64_t d_model, n_heads, n_kv_heads, d_head, d_mlp;
  int64_t window;  // 0: none
  float eps, attn_scale;
  float attn_cap;  // of the scores; 0: none
  Activation act;
};

// cos and sin, [n_positions, d_head / 2].
struct RotaryTable {
  const float *cos, *sin;
  int64_t n_positions;
};

// The intermediates a block can leave for whoever reads them, named as model/hooks/registry.py
// names them.
enum class Tap : size_t {
  LN1_SCALE,
  LN1_NORMALIZED,
  Q,
  K,
  V,
  Q_NORM_SCALE,
  Q_NORM_NORMALIZED,
  K_NORM_SCALE,
  K_NORM_NORMALIZED,
  ROT_Q,
  ROT_K,
  SCORES,
  PATTERN,
  Z,
  LN1_POST_SCALE,
  LN1_POST_NORMALIZED,
  ATTN_OUT,
  RESID_MID,
  LN2_SCALE,
  LN2_NORMALIZED,
  MLP_IN,
  PRE,
  PRE_LINEAR,
  POST,
  LN2_POST_SCALE,
  LN2_POST_NORMALIZED,
  MLP_OUT,
  COUNT
};

inline constexpr std::array<const char*, static_cast<size_t>(Tap::COUNT)> kTapNames = {
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.q_norm.hook_scale",
    "attn.q_norm.hook_normalized",
    "attn.k_norm.hook_scale",
    "attn.k_norm.hook_normalized",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "ln1_post.hook_scale",
    "ln1_post.hook_normalized",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    "mlp.hook_in",
    "mlp.hook_pre",
    "mlp.hook_pre_linear",
    "mlp.hook_post",
    "ln2_post.hook_scale",
    "ln2_post.hook_normalized",
    "hook_mlp_out",
};

// Where each goes, rows without gaps; null: nowhere. Scales, normalized activations, scores and
// patterns are fp32, the residual stream has its own dtype, the others have the KV pages'.
struct Taps {
  std::array<void*, kTapNames.size()> to = {};
  int64_t n_keys = 0;  // columns of scores and pattern

  void* operator[](Tap tap) const { return to[static_cast<size_t>(tap)]; }
  float* floats(Tap tap) const { return static_cast<float*>((*this)[tap]); }
};

// Runs the block on resid [rows, d_model], in place; kv holds this layer's pages and the dtype of
// what the block computes.
void run_block(const BlockWeights& block, const RaggedRows& batch, const int64_t* positions,
               const RotaryTable& rotary, const KVPages& kv, const Taps& taps, void* resid,
               DType resid_dtype);

}  // namespace bitlens
