#include "arrays.h"

#include <stdexcept>
#include <vector>

namespace bitlens {
namespace {

struct Named {
  const char* name;
  Element element;
  int64_t bytes;
};

constexpr Named kTypes[] = {
    {"float32", Element::F32, 4}, {"bfloat16", Element::BF16, 2}, {"float16", Element::F16, 2},
    {"float64", Element::F64, 8}, {"int64", Element::I64, 8},     {"int32", Element::I32, 4},
    {"int16", Element::I16, 2},   {"uint64", Element::U64, 8},    {"uint32", Element::U32, 4},
    {"uint8", Element::U8, 1},
};

// torch's dtypes are objects that live as long as the process: each is read by name once.
Named type_of(py::handle dtype) {
  static std::vector<std::pair<PyObject*, Named>> known;
  for (const auto& [object, type] : known)
    if (object == dtype.ptr()) return type;
  Named found = {nullptr, Element::OTHER, 1};
  const std::string text = py::str(dtype);
  for (const Named& type : kTypes)
    if (text == std::string("torch.") + type.name) found = type;
  known.emplace_back(dtype.inc_ref().ptr(), found);
  return found;
}

py::object attribute(py::handle object, const char* name) {
  return py::reinterpret_steal<py::object>(PyObject_GetAttrString(object.ptr(), name));
}

py::object call(py::handle object, PyObject* method) {
  PyObject* result = PyObject_CallMethodNoArgs(object.ptr(), method);
  if (result == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

py::object get(py::handle object, PyObject* name) {
  PyObject* result = PyObject_GetAttr(object.ptr(), name);
  if (result == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

// The elements that a strided tensor reaches over; throws if its last axis has gaps, too.
int64_t reach(py::handle tensor) {
  const py::tuple shape = attribute(tensor, "shape");
  const py::tuple strides = call(tensor, py::str("stride").ptr());
  int64_t last = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    const auto size = shape[i].cast<int64_t>(), stride = strides[i].cast<int64_t>();
    if (size == 0) return 0;
    if (i + 1 == shape.size() && size > 1 && stride != 1)
      throw std::invalid_argument("a tensor whose last axis is strided: pass .contiguous()");
    last += (size - 1) * stride;
  }
  return last + 1;
}

Array tensor(py::handle object) {
  static PyObject* const is_cpu = PyUnicode_InternFromString("is_cpu");
  static PyObject* const dtype = PyUnicode_InternFromString("dtype");
  static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
  static PyObject* const is_contiguous = PyUnicode_InternFromString("is_contiguous");
  static PyObject* const numel = PyUnicode_InternFromString("numel");
  if (get(object, is_cpu).ptr() != Py_True)
    throw std::invalid_argument("a tensor on " + std::string(py::str(attribute(object, "device"))) +
                                ": the kernels read the CPU's memory; move it with .cpu()");
  const Named type = type_of(get(object, dtype));
  Array array;
  array.given = true;
  array.element = type.element;
  array.element_bytes =
      type.element == Element::OTHER ? attribute(object, "itemsize").cast<int64_t>() : type.bytes;
  array.dense = call(object, is_contiguous).ptr() == Py_True;
  array.elements = array.dense ? PyLong_AsLongLong(call(object, numel).ptr()) : reach(object);
  array.data = static_cast<uint8_t*>(PyLong_AsVoidPtr(call(object, data_ptr).ptr()));
  return array;
}

// Numpy's formats: native sizes, in the machine's byte order.
Element element_of(const Py_buffer& view) {
  const std::string format = view.format == nullptr ? "B" : view.format;
  if (format == "f") return Element::F32;
  if (format == "d") return Element::F64;
  if (format == "B") return Element::U8;
  if (format == "i") return Element::I32;
  if (format == "I") return Element::U32;
  if (format == "l" || format == "q") return view.itemsize == 8 ? Element::I64 : Element::I32;
  if (format == "L" || format == "Q") return view.itemsize == 8 ? Element::U64 : Element::U32;
  return format.starts_with("T{") ? Element::RECORD : Element::OTHER;
}

Array buffer(py::handle object) {
  Py_buffer view;
  if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0)
    throw py::error_already_set();
  Array array;
  array.given = true;
  array.element = element_of(view);
  array.element_bytes = view.itemsize;
  array.elements = view.itemsize == 0 ? 0 : view.len / view.itemsize;
  array.data = static_cast<uint8_t*>(view.buf);
  PyBuffer_Release(&view);
  return array;
}

}  // namespace

const char* name_of(Element element) {
  for (const Named& type : kTypes)
    if (type.element == element) return type.name;
  return element == Element::RECORD ? "a record" : "another type";
}

Array array_of(py::handle object) {
  if (PyObject_CheckBuffer(object.ptr())) return buffer(object);
  if (!py::hasattr(object, "data_ptr"))
    throw py::type_error("expected a tensor, a numpy array or None");
  return tensor(object);
}

int64_t elements_of(std::initializer_list<int64_t> shape) {
  int64_t product = 1;
  for (const int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(product, size, &product))
      throw std::invalid_argument("a size that is negative or too large");
  return product;
}

int64_t extent_of(int64_t rows, int64_t width, int64_t stride) {
  if (rows == 0 || width == 0) return 0;
  if (stride < 0) throw std::invalid_argument("a stride that is negative");
  const int64_t before = elements_of({rows - 1, stride});
  return before + elements_of({width});
}

void require(const Array& array, Element element, int64_t element_bytes, int64_t elements,
             bool dense, const char* name) {
  if (!array.given && elements == 0) return;
  given(array, name);
  if (array.element != element || array.element_bytes != element_bytes)
    throw std::invalid_argument(std::string(name) + ": holds " + name_of(array.element) + ", " +
                                name_of(element) + " is read");
  if (dense && !array.dense)
    throw std::invalid_argument(std::string(name) +
                                ": has gaps between its elements; pass .contiguous()");
  if (array.elements < elements)
    throw std::invalid_argument(std::string(name) + ": holds " + std::to_string(array.elements) +
                                " elements, " + std::to_string(elements) + " are needed");
}

const Array& given(const Array& array, const char* name) {
  if (!array.given)
    throw std::invalid_argument(std::string(name) + ": None where an array is needed");
  return array;
}

uint8_t* bytes_at(const Array& array, int64_t bytes, const char* name) {
  require(given(array, name), array.element, array.element_bytes, 0, true, name);
  if (array.elements * array.element_bytes < bytes)
    throw std::invalid_argument(std::string(name) + ": holds " +
                                std::to_string(array.elements * array.element_bytes) + " bytes, " +
                                std::to_string(bytes) + " are needed");
  return array.data;
}

}  // namespace bitlens
