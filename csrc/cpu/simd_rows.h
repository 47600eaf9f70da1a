// Loops and sums over one row in 16 lanes: the orders of csrc/spec/reductions.h.
#pragma once

#include "../spec/reductions.h"
#include "simd.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

// Calls body(offset, n) for each 16 lanes of a row; n < 16 only at its end.
template <typename Body>
inline void for_lanes(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) body(i, 16);
  if (i < count) body(i, static_cast<int>(count - i));
}

// The row sum of what term(offset, n, acc) adds to the lanes.
template <typename Term>
inline float row_reduce(int64_t d, Term term) {
  float total = 0.0f;
  for (int64_t start = 0; start < d; start += spec::kRowBlock) {
    f32x16 sum = zero();
    for_lanes(d - start < spec::kRowBlock ? d - start : spec::kRowBlock,
              [&](int64_t i, int n) { sum = term(start + i, n, sum); });
    const float block = reduce_add_tree(sum);
    total = start == 0 ? block : total + block;
  }
  return total;
}

template <typename T>
inline float row_sum_of_squares(const T* x, int64_t d) {
  return row_reduce(d, [&](int64_t i, int n, f32x16 sum) {
    const f32x16 v = load_n(x + i, n);
    return fma(v, v, sum);
  });
}

}  // namespace
}  // namespace bitlens::BITLENS_ISA_NS
