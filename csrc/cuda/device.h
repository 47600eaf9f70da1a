// The few words that nvcc and the host executor of tests/cuda_host spell differently.
#pragma once

#include <cstddef>

#include "kernel_names.h"

#if defined(__CUDACC__)
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#define BL_SHARED(type, name, count) __shared__ type name[count]
#define BL_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char bl_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(bl_dynamic_shared)
#else
#include "host_cuda.h"
#define BL_SHARED(type, name, count)                              \
  static const size_t name##_id = host_cuda::next_shared_array(); \
  type* const name = static_cast<type*>(host_cuda::shared_array(name##_id, sizeof(type) * (count)))
#define BL_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(host_cuda::shared_array(0, 0))
#endif

namespace bitlens::cuda {

// Counts one more launch of a kernel.
void count_launch(Kernel kernel);

#if !defined(__CUDACC__)
// Keeps the text of a launch that failed; returns its code.
int note_failure(const char* what);
#endif

// Launches a kernel on the caller's stream and counts it. Returns 0, or the code of an error that
// blc_error_text explains.
template <typename... Parameters, typename... Arguments>
int launch(Kernel name, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
           size_t dynamic_shared, [[maybe_unused]] void* stream, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return 0;
  count_launch(name);
#if defined(__CUDACC__)
  kernel<<<grid, threads, dynamic_shared, static_cast<cudaStream_t>(stream)>>>(arguments...);
  return static_cast<int>(cudaGetLastError());
#else
  try {
    host_cuda::require_current(stream);
    host_cuda::run_grid(grid, threads, dynamic_shared, [=] { kernel(arguments...); });
    return 0;
  } catch (const std::exception& error) {
    return note_failure(error.what());
  }
#endif
}

}  // namespace bitlens::cuda
