#include "encode.h"

#include <algorithm>

#include "kernels.h"
#include "row_ranges.h"
#include "scratch.h"

namespace bitlens {
namespace {

// Outputs of one block stay in the caches between the product and the selection.
constexpr int64_t kRows = 256, kColumns = 1024;
static_assert(kColumns % kPanelColumns == 0);

// Calls body(row, outputs, first column, columns) for every row and block of columns, for the same
// row by ascending columns, rows in parallel.
template <typename Body>
void for_each_block(const Encoded& op, int64_t row0, int64_t rows, Body&& body) {
  thread_local Scratch scratch;
  const PackedMatrix& weight = op.weight;
  float* out = scratch.floats(rows * kColumns);
  for (int64_t column = 0; column < weight.n; column += kColumns) {
    const int64_t columns = std::min(kColumns, weight.n - column);
    const PackedMatrix part = {weight.data + packed_bytes(weight.format, column, weight.k),
                               weight.format, columns, weight.k};
    const LinearOutput to = {part, op.bias == nullptr ? nullptr : op.bias + column, out, DType::F32,
                             kColumns};
    linear(op.x + row0 * weight.k, DType::F32, rows, weight.k, weight.k, &to, 1);
    for_rows(rows, columns, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) body(r, out + r * kColumns, column, columns);
    });
  }
}

}  // namespace

void encode_top_k(const Encoded& op, int64_t selected, float* values, int32_t* indices) {
  const DictionaryKernels& kernel = kernels().dictionary;
  std::vector<TopKSoFar> found(static_cast<size_t>(std::min(kRows, op.m)));
  for (int64_t row0 = 0; row0 < op.m; row0 += kRows) {
    const int64_t rows = std::min(kRows, op.m - row0);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (row0 + r) * selected;
      found[static_cast<size_t>(r)] = {values + at, indices + at, selected, 0};
    }
    for_each_block(op, row0, rows, [&](int64_t r, const float* y, int64_t column, int64_t n) {
      kernel.top_k_add(y, n, column, &found[static_cast<size_t>(r)]);
    });
    for (int64_t r = 0; r < rows; ++r) kernel.top_k_finish(&found[static_cast<size_t>(r)]);
  }
}

ActiveFeatures encode_above(const Encoded& op, const float* thresholds) {
  const DictionaryKernels& kernel = kernels().dictionary;
  struct Row {
    std::vector<int32_t> indices;
    std::vector<float> values;
  };
  ActiveFeatures found;
  found.starts.push_back(0);
  std::vector<Row> block(static_cast<size_t>(std::min(kRows, op.m)));
  for (int64_t row0 = 0; row0 < op.m; row0 += kRows) {
    const int64_t rows = std::min(kRows, op.m - row0);
    for (Row& row : block) row.indices.clear(), row.values.clear();
    for_each_block(op, row0, rows, [&](int64_t r, const float* y, int64_t column, int64_t n) {
      float values[kColumns];
      int32_t indices[kColumns];
      const int64_t count = kernel.above(y, thresholds + column, n, column, values, indices);
      Row& row = block[static_cast<size_t>(r)];
      row.indices.insert(row.indices.end(), indices, indices + count);
      row.values.insert(row.values.end(), values, values + count);
    });
    for (int64_t r = 0; r < rows; ++r) {
      const Row& row = block[static_cast<size_t>(r)];
      found.indices.insert(found.indices.end(), row.indices.begin(), row.indices.end());
      found.values.insert(found.values.end(), row.values.begin(), row.values.end());
      found.starts.push_back(static_cast<int64_t>(found.indices.size()));
    }
  }
  return found;
}

}  // namespace bitlens
