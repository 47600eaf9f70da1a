// Sparse dictionaries: the k largest of a row, sums of few rows of a table, and training steps.
#include "../dictionary_kernels.h"
#include "../simd_rows.h"

namespace bitlens::BITLENS_ISA_NS {
namespace {

// A heap whose root is the entry that the next larger one replaces: the smallest value, and of
// equal ones the largest index.
struct Heap {
  float* values;
  int32_t* indices;
  int64_t size;

  bool before(int64_t a, int64_t b) const {
    return values[a] < values[b] || (values[a] == values[b] && indices[a] > indices[b]);
  }
  void swap(int64_t a, int64_t b) {
    const float value = values[a];
    const int32_t index = indices[a];
    values[a] = values[b], indices[a] = indices[b];
    values[b] = value, indices[b] = index;
  }
  void push(float value, int64_t index) {
    int64_t at = size++;
    values[at] = value, indices[at] = static_cast<int32_t>(index);
    for (; at > 0 && before(at, (at - 1) / 2); at = (at - 1) / 2) swap(at, (at - 1) / 2);
  }
  void replace_root(float value, int64_t index) {
    values[0] = value, indices[0] = static_cast<int32_t>(index);
    for (int64_t at = 0;;) {
      int64_t least = at;
      for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < size; ++child)
        if (before(child, least)) least = child;
      if (least == at) return;
      swap(at, least);
      at = least;
    }
  }
};

void sort_by_index(float* values, int32_t* indices, int64_t count) {
  int64_t gap = 1;
  while (gap < count / 3) gap = 3 * gap + 1;
  for (; gap > 0; gap /= 3)
    for (int64_t i = gap; i < count; ++i) {
      const float value = values[i];
      const int32_t index = indices[i];
      int64_t j = i;
      for (; j >= gap && indices[j - gap] > index; j -= gap)
        values[j] = values[j - gap], indices[j] = indices[j - gap];
      values[j] = value, indices[j] = index;
    }
}

constexpr int64_t kScanned = 64;

// Whether any of 64 values is greater than `bound`; NaN is not.
bool any_above(const float* x, float bound) {
  const f32x16 low = splat(bound), yes = splat(1.0f), no = zero();
  const f32x16 a = select_less(low, load(x), yes, no);
  const f32x16 b = select_less(low, load(x + 16), yes, a);
  const f32x16 c = select_less(low, load(x + 32), yes, b);
  return reduce_max(select_less(low, load(x + 48), yes, c)) > 0.0f;
}

void top_k_add(const float* x, int64_t n, int64_t first, TopKSoFar* found) {
  Heap heap = {found->values, found->indices, found->size};
  int64_t i = 0;
  for (; i < n && heap.size < found->k; ++i)
    if (x[i] == x[i]) heap.push(x[i], first + i);
  while (i < n) {
    // Later indices lose ties, so only what is greater than the root comes in.
    if (n - i >= kScanned && !any_above(x + i, heap.values[0])) {
      i += kScanned;
      continue;
    }
    const int64_t end = n - i < kScanned ? n : i + kScanned;
    for (; i < end; ++i)
      if (x[i] > heap.values[0]) heap.replace_root(x[i], first + i);
  }
  found->size = heap.size;
}

void top_k_finish(TopKSoFar* found) {
  sort_by_index(found->values, found->indices, found->size);
  for (int64_t j = found->size; j < found->k; ++j) found->values[j] = 0.0f, found->indices[j] = -1;
}

// Whether any of 16 values is above its threshold; NaN is not.
bool any_above_own(const float* x, const float* thresholds) {
  return reduce_max(select_less(load(thresholds), load(x), splat(1.0f), zero())) > 0.0f;
}

int64_t above(const float* x, const float* thresholds, int64_t n, int64_t first, float* values,
              int32_t* indices) {
  int64_t count = 0;
  for (int64_t i = 0; i < n;) {
    if (n - i >= 16 && !any_above_own(x + i, thresholds + i)) {
      i += 16;
      continue;
    }
    const int64_t end = n - i < 16 ? n : i + 16;
    for (; i < end; ++i) {
      if (!(x[i] > thresholds[i])) continue;
      values[count] = x[i];
      indices[count++] = static_cast<int32_t>(first + i);
    }
  }
  return count;
}

constexpr int kTile = 4;  // vectors of columns that a sum keeps in registers

// Columns [0, 16 * kTile) of a sum; `width` of them are there.
template <bool kWhole>
void sum_columns(const float* coefs, const int32_t* rows, int64_t count, const float* table,
                 int64_t d, int width, float* out) {
  f32x16 total[kTile];
  for (int t = 0; t < kTile; ++t) total[t] = zero();
  for (int64_t start = 0; start < count; start += kLeaf) {
    const int64_t end = count - start < kLeaf ? count : start + kLeaf;
    f32x16 leaf[kTile];
    for (int t = 0; t < kTile; ++t) leaf[t] = zero();
    for (int64_t i = start; i < end; ++i) {
      if (rows[i] < 0) continue;
      const float* row = table + rows[i] * d;
      const f32x16 coef = splat(coefs[i]);
      for (int t = 0; t < kTile; ++t) {
        if (kWhole)
          leaf[t] = fma(coef, load(row + 16 * t), leaf[t]);
        else if (width > 16 * t)
          leaf[t] = fma(coef, load_n(row + 16 * t, width - 16 * t), leaf[t]);
      }
    }
    for (int t = 0; t < kTile; ++t) total[t] = start == 0 ? leaf[t] : total[t] + leaf[t];
  }
  for (int t = 0; t < kTile; ++t)
    if (width > 16 * t) store_n(out + 16 * t, total[t], width - 16 * t);
}

void weighted_sum(const float* coefs, const int32_t* rows, int64_t count, const float* table,
                  int64_t d, const float* bias, float* out) {
  constexpr int64_t kWidth = 16 * kTile;
  for (int64_t column = 0; column < d; column += kWidth) {
    const int width = static_cast<int>(d - column < kWidth ? d - column : kWidth);
    if (width == kWidth)
      sum_columns<true>(coefs, rows, count, table + column, d, width, out + column);
    else
      sum_columns<false>(coefs, rows, count, table + column, d, width, out + column);
  }
  if (bias != nullptr)
    for_lanes(d, [&](int64_t i, int n) {
      store_n(out + i, load_n(out + i, n) + load_n(bias + i, n), n);
    });
}

float dot(const float* x, const float* y, int64_t d) {
  return row_reduce(d, [&](int64_t i, int n, f32x16 sum) {
    return fma(load_n(x + i, n), load_n(y + i, n), sum);
  });
}

void dots(const float* x, const int32_t* rows, int64_t count, const float* table, int64_t d,
          float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = rows[i] < 0 ? 0.0f : dot(x, table + rows[i] * d, d);
}

float sum_of_squares(const float* x, int64_t d) { return row_sum_of_squares(x, d); }

void unit_row(float* w, int64_t d) {
  const float norm = __builtin_sqrtf(row_sum_of_squares(w, d));
  if (norm == 0.0f) return;
  const f32x16 divisor = splat(norm);
  for_lanes(d, [&](int64_t i, int n) { store_n(w + i, load_n(w + i, n) / divisor, n); });
}

void project_row(float* g, const float* w, int64_t d) {
  const f32x16 along = splat(dot(g, w, d));
  for_lanes(
      d, [&](int64_t i, int n) { store_n(g + i, load_n(g + i, n) - along * load_n(w + i, n), n); });
}

void adam(const AdamStep& op, const float* g, int64_t count, float* p, float* m, float* v) {
  const f32x16 beta1 = splat(op.beta1), rest1 = splat(op.one_minus_beta1);
  const f32x16 beta2 = splat(op.beta2), rest2 = splat(op.one_minus_beta2);
  const f32x16 step = splat(op.step), v_scale = splat(op.v_scale), eps = splat(op.eps);
  const f32x16 clip = splat(op.clip), decay = splat(op.decay);
  for_lanes(count, [&](int64_t i, int n) {
    const f32x16 grad = load_n(g + i, n) * clip;
    const f32x16 mean = beta1 * load_n(m + i, n) + rest1 * grad;
    const f32x16 square = beta2 * load_n(v + i, n) + rest2 * (grad * grad);
    store_n(m + i, mean, n);
    store_n(v + i, square, n);
    const f32x16 scaled = mean / (sqrt(square) * v_scale + eps);
    store_n(p + i, load_n(p + i, n) * decay - step * scaled, n);
  });
}

constexpr DictionaryKernels kDictionaryKernels = {top_k_add,    top_k_finish, above,
                                                  weighted_sum, dots,         sum_of_squares,
                                                  unit_row,     project_row,  adam};

}  // namespace

const DictionaryKernels& dictionary_kernels() { return kDictionaryKernels; }

}  // namespace bitlens::BITLENS_ISA_NS
