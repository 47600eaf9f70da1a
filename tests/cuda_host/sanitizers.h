// How AddressSanitizer and ThreadSanitizer are told that a fiber goes on where another one stopped.
// Without them every function here is empty.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreReadsBegin(const char*, int);
extern "C" void AnnotateIgnoreReadsEnd(const char*, int);
extern "C" void AnnotateIgnoreWritesBegin(const char*, int);
extern "C" void AnnotateIgnoreWritesEnd(const char*, int);
#endif

namespace host_cuda {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Code in the life of one of these is the executor's own: no access of it is part of a race.
struct Unwatched {
#if defined(__SANITIZE_THREAD__)
  Unwatched() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Unwatched() { AnnotateIgnoreReadsEnd("", 0), AnnotateIgnoreWritesEnd("", 0); }
#else
  ~Unwatched() {}
#endif
};

// A stack, as a sanitizer knows it. The scheduler's is the thread's own.
struct SanitizedStack {
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* handle = nullptr;  // ThreadSanitizer's
  void* fake = nullptr;    // AddressSanitizer's

  void of_thread() {
#if defined(__SANITIZE_THREAD__)
    handle = __tsan_get_current_fiber();
#endif
  }
  void create() {
#if defined(__SANITIZE_THREAD__)
    handle = __tsan_create_fiber(0);
#endif
  }
  void destroy() {
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(handle);
#endif
  }
};

// Before a switch from one stack to another. Nothing is synchronized by it: an order of fibers is
// no order of threads. A fiber that ends gives its fake stack up.
inline void leave([[maybe_unused]] SanitizedStack& from, [[maybe_unused]] const SanitizedStack& to,
                  [[maybe_unused]] bool ends = false) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake, to.bottom, to.bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.handle, __tsan_switch_to_fiber_no_sync);
#endif
}

// After it, on the stack `here`. `before`, where given, learns the bounds of the stack that was
// left.
inline void arrive([[maybe_unused]] SanitizedStack& here,
                   [[maybe_unused]] SanitizedStack* before = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(here.fake, before ? &before->bottom : nullptr,
                                  before ? &before->bytes : nullptr);
#endif
}

// Two switches that do synchronize: what `first` did comes before what `second` does next.
inline void synchronize([[maybe_unused]] const SanitizedStack& there,
                        [[maybe_unused]] const SanitizedStack& back, [[maybe_unused]] bool enter) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(there.handle, enter ? 0 : __tsan_switch_to_fiber_no_sync);
  __tsan_switch_to_fiber(back.handle, enter ? __tsan_switch_to_fiber_no_sync : 0);
#endif
}

inline void release_token([[maybe_unused]] void* token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(token);
#endif
}

inline void acquire_token([[maybe_unused]] void* token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(token);
#endif
}

}  // namespace host_cuda
