// Linux gives a process the state of AMX tiles when asked for it, to all of its threads.
#include "../linear_kernels.h"

#if defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bitlens::amx {

#if defined(__linux__)
namespace {

constexpr long kRequestPermission = 0x1023, kTileData = 18;
constexpr unsigned kTileUnit = 1u << 24, kTileBf16 = 1u << 22;  // CPUID 7.0, EDX

}  // namespace

bool request_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTileUnit) == 0 || (d & kTileBf16) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
bool request_tiles() { return false; }
#endif

}  // namespace bitlens::amx
