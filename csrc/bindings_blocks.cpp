// The part of bitlens._core that runs whole blocks.
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <tuple>
#include <vector>

#include "bindings_pages.h"
#include "cpu/block.h"
#include "cpu/float_environment.h"

namespace bitlens {
namespace {

using Norms = std::array<Array, 6>;
using ProjectionFields = std::tuple<Array, int, int64_t, int64_t, Array>;
using Rotary = std::vector<std::tuple<Array, Array, int64_t>>;
using Tapped = std::vector<std::pair<size_t, Array>>;

// Arrays that many calls read, looked at once and kept alive.
struct Arrays {
  py::list held;
  std::vector<Array> arrays;

  explicit Arrays(const py::sequence& objects) : held(objects) {
    for (const py::handle object : held) arrays.push_back(array_of(object));
  }
};

BlockWeights block_of(const Norms& norms, const std::array<ProjectionFields, 7>& projections,
                      const std::array<int64_t, 5>& shape) {
  BlockWeights block{};
  block.d_model = shape[0];
  block.n_heads = shape[1];
  block.n_kv_heads = shape[2];
  block.d_head = shape[3];
  block.d_mlp = shape[4];
  const float** const vectors[] = {&block.ln1,      &block.ln2,    &block.ln1_post,
                                   &block.ln2_post, &block.q_norm, &block.k_norm};
  for (size_t i = 0; i < norms.size(); ++i)
    *vectors[i] = maybe<float>(norms[i], {i < 4 ? block.d_model : block.d_head}, "norms");
  const int64_t d = block.d_model, q = elements_of({block.n_heads, block.d_head}),
                kv = elements_of({block.n_kv_heads, block.d_head}), mlp = block.d_mlp;
  const std::tuple<Projection*, int64_t, int64_t> slots[] = {
      {&block.q, q, d},      {&block.k, kv, d},   {&block.v, kv, d},    {&block.o, d, q},
      {&block.gate, mlp, d}, {&block.up, mlp, d}, {&block.down, d, mlp}};
  for (size_t i = 0; i < projections.size(); ++i) {
    const auto& [panels, format, n, k, bias] = projections[i];
    const auto& [slot, rows, columns] = slots[i];
    if (n != rows || k != columns)
      throw std::invalid_argument("Blocks.add: a projection of another shape than the block's");
    *slot = {matrix_of(panels, format, n, k), maybe<float>(bias, {n}, "bias")};
  }
  return block;
}

// Elements of a tap's row, and whether they are fp32 whatever the block computes in.
std::pair<int64_t, bool> tap_row(const BlockWeights& block, Tap tap, int64_t n_keys) {
  const int64_t q = block.n_heads * block.d_head, kv = block.n_kv_heads * block.d_head;
  switch (tap) {
    case Tap::LN1_SCALE:
    case Tap::LN1_POST_SCALE:
    case Tap::LN2_SCALE:
    case Tap::LN2_POST_SCALE:
      return {1, true};
    case Tap::LN1_NORMALIZED:
    case Tap::LN1_POST_NORMALIZED:
    case Tap::LN2_NORMALIZED:
    case Tap::LN2_POST_NORMALIZED:
      return {block.d_model, true};
    case Tap::Q_NORM_SCALE:
      return {block.n_heads, true};
    case Tap::K_NORM_SCALE:
      return {block.n_kv_heads, true};
    case Tap::Q_NORM_NORMALIZED:
      return {q, true};
    case Tap::K_NORM_NORMALIZED:
      return {kv, true};
    case Tap::SCORES:
    case Tap::PATTERN:
      return {block.n_heads * n_keys, true};
    case Tap::Q:
    case Tap::ROT_Q:
    case Tap::Z:
      return {q, false};
    case Tap::K:
    case Tap::V:
    case Tap::ROT_K:
      return {kv, false};
    case Tap::PRE:
    case Tap::PRE_LINEAR:
    case Tap::POST:
      return {block.d_mlp, false};
    default:
      return {block.d_model, false};
  }
}

Taps taps_of(const Tapped& tapped, const BlockWeights& block, const RaggedRows& rows,
             int64_t n_keys, DType dtype, DType resid_dtype) {
  Taps taps;
  taps.n_keys = n_keys;
  for (const auto& [index, array] : tapped) {
    const auto [width, wide] = tap_row(block, static_cast<Tap>(index), n_keys);
    const bool resid = static_cast<Tap>(index) == Tap::RESID_MID;
    const DType type = wide ? DType::F32 : resid ? resid_dtype : dtype;
    taps.to.at(index) = at(array, type, {count_of(rows), width}, "tapped");
  }
  if (!tapped.empty() && longest(rows) > n_keys)
    throw std::invalid_argument("n_keys: less than the longest sequence");
  return taps;
}

struct Blocks {
  std::vector<BlockWeights> blocks;

  void run(size_t start, size_t stop, const Array& x, const Array& resid, int64_t values,
           int resid_dtype, int dtype, const Array& positions, const Array& starts,
           const Array& past, int64_t batch, const Array& page_table, int64_t max_pages,
           const Arrays& pages, const Rotary& rotary, const std::vector<size_t>& rotary_of,
           const Tapped& tapped, int64_t n_keys) const {
    if (!tapped.empty() && stop - start != 1)
      throw std::invalid_argument("Blocks.run: taps belong to one block, give a range of one");
    if (start > stop || stop > blocks.size() || pages.arrays.size() != 2 * blocks.size() ||
        rotary_of.size() != blocks.size())
      throw std::invalid_argument(
          "Blocks.run: pages and rotary_of must have entries for every block");
    const FloatEnvironment environment;
    const RaggedRows rows = rows_of(starts, past, batch);
    const DType type = dtype_of(dtype), resid_type = dtype_of(resid_dtype);
    void* const out = at(resid, resid_type, {values}, "resid");
    std::memcpy(out, at(x, resid_type, {values}, "x"),
                static_cast<size_t>(values) * dtype_bytes(resid_type));
    const auto* where = at<int64_t>(positions, {count_of(rows)}, "positions");
    for (size_t i = start; i < stop; ++i) {
      const BlockWeights& block = blocks[i];
      if (values != elements_of({count_of(rows), block.d_model}))
        throw std::invalid_argument("Blocks.run: another residual stream than the rows'");
      const Array &k_pages = pages.arrays[2 * i], &v_pages = pages.arrays[2 * i + 1];
      const auto& [cos, sin, n_positions] = rotary.at(rotary_of[i]);
      const KVPages kv = pages_of(rows, type, block.n_kv_heads, block.d_head, page_table, max_pages,
                                  given(k_pages, "k_pages"), given(v_pages, "v_pages"));
      const RotaryTable table = {at<float>(cos, {n_positions, block.d_head / 2}, "cos"),
                                 at<float>(sin, {n_positions, block.d_head / 2}, "sin"),
                                 n_positions};
      run_block(block, rows, where, table, kv,
                taps_of(tapped, block, rows, n_keys, type, resid_type), out, resid_type);
    }
  }
};

}  // namespace

void bind_blocks(py::module_& m) {
  m.attr("TAPS") = py::tuple(py::cast(kTapNames));
  py::class_<Arrays>(m, "Arrays").def(py::init<const py::sequence&>());
  py::class_<Blocks>(m, "Blocks")
      .def(py::init<>())
      .def("add",
           [](Blocks& self, const Norms& norms, const std::array<ProjectionFields, 7>& projections,
              const std::array<int64_t, 5>& shape, int64_t window, float eps, float attn_scale,
              float attn_cap, int act) {
             BlockWeights block = block_of(norms, projections, shape);
             block.window = window;
             block.eps = eps;
             block.attn_scale = attn_scale;
             block.attn_cap = attn_cap;
             block.act = activation_of(act);
             self.blocks.push_back(block);
           })
      .def("run", &Blocks::run, NoGil());
}

}  // namespace bitlens
