// Runs the blocks of a CUDA kernel on the host, one fiber a thread: for tests of bits, not of
// speed.
//
// A fiber runs until it must wait, for its block or for lanes of its warp; then the next one in the
// chosen order runs: up, down, or drawn from a seed. Threads that wait for what cannot come are an
// error that lists them. Shared memory is one heap block an array, filled with NaNs anew for every
// block, so that AddressSanitizer sees overruns and NaNs show what nobody wrote. Asynchronous
// copies land when they are waited for, no sooner. Under ThreadSanitizer fibers are switched
// without synchronizing, so a missing barrier is a data race in whatever order they run.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "sanitizers.h"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned count() const { return x * y * z; }
};

namespace host_cuda {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kValueBytes = 16;

// Where threads wait for each other: those of a block, or the lanes of a mask.
struct Meeting {
  unsigned arrived = 0, generation = 0;
  unsigned mask = 0;           // of a warp's lanes
  const char* what = nullptr;  // the collective under way
  // By the parity of generations: who leaves late must neither read what an early one brings to
  // the next meeting, nor acquire what it releases there.
  char token[2] = {};
  unsigned char value[2][kWarp][kValueBytes];
};

struct AsyncCopy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Fiber {
  dim3 thread;
  unsigned linear = 0;
  bool started = false, done = false;
  const Meeting* waits_for = nullptr;
  unsigned waits_generation = 0;
  const char* waits_in = nullptr;
  std::vector<std::vector<AsyncCopy>> groups;  // of copies under way; the last one is open
  ucontext_t context;
  jmp_buf jump;
  SanitizedStack stack;
  std::unique_ptr<char[]> memory;

  bool runnable() const {
    return !done && (waits_for == nullptr || waits_for->generation != waits_generation);
  }
};

struct Block {
  dim3 index, block_dim, grid_dim;
  std::vector<Fiber> fibers;
  Meeting barrier;
  std::vector<std::list<Meeting>> warps;  // a meeting for each mask that was used
  unsigned live = 0;
  std::function<void()> body;
  std::vector<std::unique_ptr<char[]>> shared;  // by the order of first use; 0 is the dynamic array
  size_t dynamic_bytes = 0;
  Fiber* current = nullptr;
  ucontext_t scheduler;
  jmp_buf scheduler_jump;
  SanitizedStack scheduler_stack;
  std::exception_ptr error;
};

// The order in which threads of a block run, and blocks of a grid.
struct Order {
  bool down = false;
  bool drawn = false;
  std::mt19937 random;

  // "up", "down", or a seed.
  explicit Order(const std::string& name);
  void arrange(std::vector<unsigned>* indices);
};

Block& block();
Fiber& self();

// Lets another fiber run.
void yield();

// Waits until `expected` threads are here.
void meet(Meeting& meeting, unsigned expected, const char* what);
void sync_threads();
unsigned lane();

// What each lane of `mask` brought; `what` must be the same for all.
const unsigned char (*warp_exchange(unsigned mask, const void* value, size_t bytes,
                                    const char* what))[kValueBytes];

// Memory of a block; `id` is that of the array, 0 the dynamic one.
size_t next_shared_array();
void* shared_array(size_t id, size_t bytes);

void async_copy(void* to, const void* from, size_t bytes);
void async_commit();
void async_wait(unsigned groups_left);

// A kernel that is launched on another stream than the current one, at first the null stream, is an
// error: nobody waits for it.
void require_current(void* stream);

// Runs every block of a grid. Throws std::logic_error for what a GPU would hang on or leave
// undefined.
void run_grid(dim3 grid, dim3 threads, size_t dynamic_shared, std::function<void()> body);

[[noreturn]] void fail(const std::string& what);

}  // namespace host_cuda

extern "C" __attribute__((visibility("default"))) void host_cuda_make_current(void* stream);
