// Attention for a block of query rows that share one key-value head of one sequence.
#pragma once

#include "types.h"

namespace bitlens {

constexpr int64_t kTileRows = 6;    // query rows of a register tile
constexpr int64_t kBlockRows = 48;  // query rows of a block, at most

// One query row of one head. Keys first <= j < last are visible, in positions of its sequence.
struct AttentionRow {
  int64_t first, last;
  const void* q;         // [d_head]
  void* out;             // [d_head]
  float* lse;            // may be null
  float* scores;         // [k_total], `scores` writes it; `attend` too, unless null
  float* pattern_out;    // [k_total], `attend` writes it, unless null
  const float* pattern;  // [k_total], `values` reads its visible part
};

struct AttentionBlock {
  const AttentionRow* rows;
  int64_t n_rows;  // at most kBlockRows
  DType dtype;
  int64_t d_head;
  float scale, cap;           // cap 0: none
  const int32_t* page_table;  // of the sequence
  const void *k, *v;          // page i of the head is page_stride * i elements further
  int64_t page_stride;
  int64_t k_total;  // columns of scores and pattern
};

struct AttentionKernels {
  int64_t (*scratch)(const AttentionBlock& block);              // floats that each of these needs
  void (*attend)(const AttentionBlock& block, float* scratch);  // out and lse
  void (*scores)(const AttentionBlock& block, float* scratch);  // -inf where masked
  void (*values)(const AttentionBlock& block, float* scratch);  // out
};

namespace generic {
const AttentionKernels& attention_kernels();
}
namespace avx2 {
const AttentionKernels& attention_kernels();
}
namespace avx512 {
const AttentionKernels& attention_kernels();
}

}  // namespace bitlens
