// Rows and elements split over threads.
#pragma once

#include <algorithm>

#include "float_environment.h"
#include "threads.h"
#include "types.h"

namespace bitlens {

// Waking threads costs as much as this many elements.
constexpr int64_t kSerialElements = 1 << 16;
constexpr int64_t kRangesPerThread = 4;

// Calls body(begin, end) over [0, count), in one range if the work is small.
template <typename Body>
void for_ranges(int64_t count, int64_t elements_each, int64_t align, Body&& body) {
  const FloatEnvironment environment;
  const int threads = num_threads();
  if (threads == 1 || count * elements_each <= kSerialElements) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  const int64_t ranges = threads * kRangesPerThread;
  const int64_t step = ((count + ranges - 1) / ranges + align - 1) / align * align;
  parallel_for((count + step - 1) / step,
               [&](int64_t i) { body(i * step, std::min(count, (i + 1) * step)); });
}

template <typename Body>
void for_rows(int64_t rows, int64_t elements_each, Body&& body) {
  for_ranges(rows, elements_each, 1, body);
}

// Ranges of whole cache lines, so that no two threads write one.
template <typename Body>
void for_elements(int64_t count, Body&& body) {
  for_ranges(count, 1, 64, body);
}

inline const uint8_t* at(const void* p, int64_t index, DType dtype) {
  return static_cast<const uint8_t*>(p) + index * static_cast<int64_t>(dtype_bytes(dtype));
}

inline uint8_t* at(void* p, int64_t index, DType dtype) {
  return static_cast<uint8_t*>(p) + index * static_cast<int64_t>(dtype_bytes(dtype));
}

}  // namespace bitlens
