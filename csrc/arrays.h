// Tensors and numpy arrays as Python hands them over, each checked before a kernel gets its
// address: on the CPU, of the element type that is read, without gaps, and with all elements that
// are read. Always: a wrong one is a memory error.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "cpu/types.h"

namespace bitlens {

namespace py = pybind11;

// RECORD: any type of numpy's that kernels know as a struct.
enum class Element : uint8_t { F32, BF16, F16, F64, I64, I32, I16, U64, U32, U8, RECORD, OTHER };

const char* name_of(Element element);

// What Python handed over, and keeps alive for the length of the call.
struct Array {
  uint8_t* data = nullptr;
  int64_t elements = 0;  // from data to the end of the last one, gaps included
  int64_t element_bytes = 0;
  Element element = Element::OTHER;
  bool dense = true;   // its elements follow each other in row-major order
  bool given = false;  // not None
};

// Reads a tensor or a numpy array; throws py::type_error or std::invalid_argument.
Array array_of(py::handle object);

// Elements of a shape; throws std::invalid_argument for one that is negative or too large.
int64_t elements_of(std::initializer_list<int64_t> shape);

// From the first element of rows of `width` elements, `stride` apart, to the end of the last.
int64_t extent_of(int64_t rows, int64_t width, int64_t stride);

// The one check; throws std::invalid_argument, which calls the argument by its name.
void require(const Array& array, Element element, int64_t element_bytes, int64_t elements,
             bool dense, const char* name);

template <typename T>
constexpr Element element_for() {
  if constexpr (std::is_same_v<T, float>) return Element::F32;
  if constexpr (std::is_same_v<T, double>) return Element::F64;
  if constexpr (std::is_same_v<T, int64_t>) return Element::I64;
  if constexpr (std::is_same_v<T, int32_t>) return Element::I32;
  if constexpr (std::is_same_v<T, uint64_t>) return Element::U64;
  if constexpr (std::is_same_v<T, uint32_t>) return Element::U32;
  if constexpr (std::is_same_v<T, uint8_t>) return Element::U8;
  return Element::RECORD;
}

inline Element element_for(DType dtype) {
  return dtype == DType::F32 ? Element::F32 : Element::BF16;
}

// Elements of a shape, one after another.
template <typename T>
T* at(const Array& array, std::initializer_list<int64_t> shape, const char* name) {
  require(array, element_for<T>(), sizeof(T), elements_of(shape), true, name);
  return reinterpret_cast<T*>(array.data);
}

inline void* at(const Array& array, DType dtype, std::initializer_list<int64_t> shape,
                const char* name) {
  require(array, element_for(dtype), static_cast<int64_t>(dtype_bytes(dtype)), elements_of(shape),
          true, name);
  return array.data;
}

// Rows that may lie apart.
inline void* rows_at(const Array& array, DType dtype, int64_t rows, int64_t width, int64_t stride,
                     const char* name) {
  require(array, element_for(dtype), static_cast<int64_t>(dtype_bytes(dtype)),
          extent_of(rows, width, stride), false, name);
  return array.data;
}

// The same, or null for None.
template <typename T>
T* maybe(const Array& array, std::initializer_list<int64_t> shape, const char* name) {
  return array.given ? at<T>(array, shape, name) : nullptr;
}

inline void* maybe(const Array& array, DType dtype, std::initializer_list<int64_t> shape,
                   const char* name) {
  return array.given ? at(array, dtype, shape, name) : nullptr;
}

// The array itself; throws std::invalid_argument for None.
const Array& given(const Array& array, const char* name);

// Bytes of any element type.
uint8_t* bytes_at(const Array& array, int64_t bytes, const char* name);

}  // namespace bitlens

namespace pybind11::detail {

template <>
struct type_caster<bitlens::Array> {
  PYBIND11_TYPE_CASTER(bitlens::Array, const_name("torch.Tensor | numpy.ndarray | None"));

  bool load(handle source, bool) {
    if (source.is_none()) return true;
    if (PyLong_Check(source.ptr())) return false;
    value = bitlens::array_of(source);
    return true;
  }
};

}  // namespace pybind11::detail
