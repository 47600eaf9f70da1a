// What the parts of bitlens._core share. Pointers are integers (tensor.data_ptr()), sizes and
// strides are in elements, dtypes and activations are the codes of cpu/types.h and
// cpu/row_kernels.h.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "cpu/row_kernels.h"

namespace bitlens {

namespace py = pybind11;

using Address = uintptr_t;
using NoGil = py::call_guard<py::gil_scoped_release>;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

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

void bind_backward(py::module_& m);    // bindings_backward.cpp
void bind_dictionary(py::module_& m);  // bindings_dictionary.cpp
void bind_probes(py::module_& m);      // bindings_probes.cpp
void bind_sampling(py::module_& m);    // bindings_sampling.cpp

}  // namespace bitlens
