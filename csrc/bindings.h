// What the parts of bitlens._core share. Sizes and strides are in elements, dtypes and activations
// are the codes of cpu/types.h and cpu/row_kernels.h.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "arrays.h"
#include "cpu/linear.h"
#include "cpu/row_kernels.h"

namespace bitlens {

using NoGil = py::call_guard<py::gil_scoped_release>;

inline DType dtype_of(int code) {
  if (code != 0 && code != 1)
    throw std::invalid_argument("activation dtype code must be 0 (F32) or 1 (BF16)");
  return static_cast<DType>(code);
}

inline Activation activation_of(int code) {
  if (code != 0 && code != 1)
    throw std::invalid_argument("activation code must be 0 (silu) or 1 (gelu_tanh)");
  return static_cast<Activation>(code);
}

inline Format format_of(int code) {
  if (code < 0 || code > 5) throw std::invalid_argument("weight format code must be 0..5");
  return static_cast<Format>(code);
}

inline PackedMatrix matrix_of(const Array& panels, int format, int64_t n, int64_t k) {
  const Format kind = format_of(format);
  return {bytes_at(panels, packed_bytes(kind, n, k), "panels"), kind, n, k};
}

// Where rows begin in a list of entries, ascending.
struct Ranges {
  const int64_t* starts;
  int64_t entries;
};

inline Ranges ranges_of(const Array& array, int64_t rows) {
  const auto* starts = at<int64_t>(array, {rows + 1}, "starts");
  for (int64_t r = 0; r < rows; ++r)
    if (starts[r] < 0 || starts[r] > starts[r + 1])
      throw std::invalid_argument("starts: expected ascending numbers from 0 on");
  return {starts, starts[rows]};
}

void bind_attention(py::module_& m);   // bindings_attention.cpp
void bind_blocks(py::module_& m);      // bindings_blocks.cpp
void bind_backward(py::module_& m);    // bindings_backward.cpp
void bind_dictionary(py::module_& m);  // bindings_dictionary.cpp
void bind_probes(py::module_& m);      // bindings_probes.cpp
void bind_sampling(py::module_& m);    // bindings_sampling.cpp
void bind_training(py::module_& m);    // bindings_training.cpp

}  // namespace bitlens
