// What the library says of itself: errors, launches, driver and devices.
#include <atomic>
#include <string>

#include "../spec/version.h"
#include "device.h"
#include "library.h"

namespace bitlens::cuda {
namespace {

std::atomic<int64_t> g_launches[static_cast<int>(Kernel::COUNT)];

#if defined(__CUDACC__)
__global__ void probe() {}
#else
thread_local std::string g_failure;
#endif

}  // namespace

void count_launch(Kernel kernel) {
  g_launches[static_cast<int>(kernel)].fetch_add(1, std::memory_order_relaxed);
}

#if !defined(__CUDACC__)
int note_failure(const char* what) {
  g_failure = what;
  return 1;
}
#endif

}  // namespace bitlens::cuda

using namespace bitlens::cuda;

const char* blc_numerics_version() { return bitlens::spec::kNumericsVersion; }
int blc_kernel_count() { return static_cast<int>(Kernel::COUNT); }
const char* blc_kernel_name(int kernel) { return kKernelNames[kernel]; }
int64_t blc_launches(int kernel) { return g_launches[kernel].load(std::memory_order_relaxed); }

#if defined(__CUDACC__)

const char* blc_error_text(int code) {
  if (code == kWorkspaceTooSmall) return "the workspace does not hold one row";
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}

int blc_driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int blc_runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

int blc_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : -1;
}

int blc_device_architecture(int device) {
  int major = 0, minor = 0;
  const bool known =
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess;
  return known ? 10 * major + minor : 0;
}

int blc_device_is_supported(int device) {
  int before = 0;
  if (cudaGetDevice(&before) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) return 0;
  cudaFuncAttributes attributes;
  const bool found = cudaFuncGetAttributes(&attributes, probe) == cudaSuccess;
  cudaSetDevice(before);
  return found;
}

#else  // on the host executor: one device, which is the CPU

const char* blc_error_text(int code) {
  return code == kWorkspaceTooSmall ? "the workspace does not hold one row" : g_failure.c_str();
}
int blc_driver_version() { return 0; }
int blc_runtime_version() { return 0; }
int blc_device_count() { return 1; }
int blc_device_architecture(int) { return 0; }
int blc_device_is_supported(int) { return 1; }

#endif
