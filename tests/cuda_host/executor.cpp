#include "executor.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace host_cuda {
namespace {

thread_local Block* g_block = nullptr;
std::atomic<void*> g_stream{nullptr};

void fiber_main() {
  Block& b = block();
  arrive(self().stack, &b.scheduler_stack);
  try {
    b.body();
  } catch (...) {
    if (!b.error) b.error = std::current_exception();
  }
  {
    Unwatched u;
    b.current->done = true;
    --b.live;
    if (b.barrier.arrived > 0 && b.barrier.arrived == b.live) {
      b.barrier.arrived = 0;
      ++b.barrier.generation;
    }
  }
  yield();
}

// From the scheduler to a fiber and back. Without sanitizers by setjmp: a switch of contexts makes
// a system call.
void resume(Block& b, Fiber& f) {
  b.current = &f;
  leave(b.scheduler_stack, f.stack);
  if constexpr (kSanitized) {
    swapcontext(&b.scheduler, &f.context);
  } else if (_setjmp(b.scheduler_jump) == 0) {
    if (f.started) _longjmp(f.jump, 1);
    f.started = true;
    setcontext(&f.context);
  }
  arrive(b.scheduler_stack);
}

void prepare_fiber(Block& b, unsigned i) {
  Fiber& f = b.fibers[i];
  const dim3 d = b.block_dim;
  f.linear = i;
  f.thread = {i % d.x, i / d.x % d.y, i / (d.x * d.y)};
  f.done = f.started = false;
  f.waits_for = nullptr;
  f.groups.assign(1, {});
  if (!f.memory) f.memory = std::make_unique<char[]>(kStackBytes);
  f.stack.bottom = f.memory.get();
  f.stack.bytes = kStackBytes;
  f.stack.fake = nullptr;
  f.stack.create();
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.memory.get();
  f.context.uc_stack.ss_size = kStackBytes;
  f.context.uc_link = nullptr;
  makecontext(&f.context, fiber_main, 0);
}

void prepare_block(Block& b) {
  const unsigned n = b.block_dim.count();
  b.live = n;
  b.barrier = {};
  b.error = nullptr;
  b.warps.assign((n + kWarp - 1) / kWarp, {});
  for (auto& array : b.shared) array.reset();
  if (b.dynamic_bytes > 0) shared_array(0, b.dynamic_bytes);
  b.fibers.resize(n);
  b.scheduler_stack.of_thread();
  for (unsigned i = 0; i < n; ++i) prepare_fiber(b, i);
}

[[noreturn]] void fail_stuck(const Block& b) {
  std::string stuck;
  for (const Fiber& f : b.fibers) {
    if (f.done) continue;
    stuck += " " + std::to_string(f.linear) + ":" + f.waits_in;
    if (stuck.size() > 400) break;
  }
  throw std::logic_error("block " + std::to_string(b.index.x) + ": threads wait forever:" + stuck);
}

void run_fibers(Block& b, Order& order) {
  std::vector<unsigned> turns(b.fibers.size());
  order.arrange(&turns);
  while (b.live > 0 && !b.error) {
    if (order.drawn) order.arrange(&turns);
    bool progress = false;
    for (unsigned i : turns) {
      if (b.error || !b.fibers[i].runnable()) continue;
      resume(b, b.fibers[i]);
      progress = true;
    }
    if (!progress) fail_stuck(b);
  }
  if (b.error) std::rethrow_exception(b.error);
}

void run_block(Block& b, Order& order) {
  prepare_block(b);
  for (Fiber& f : b.fibers) synchronize(f.stack, b.scheduler_stack, true);
  run_fibers(b, order);
  for (Fiber& f : b.fibers) {
    synchronize(f.stack, b.scheduler_stack, false);
    f.stack.destroy();
  }
}

// Lanes of one mask meet apart from those of another, which may be at the same time.
Meeting& meeting_of(unsigned mask) {
  std::list<Meeting>& found = block().warps[self().linear / kWarp];
  for (Meeting& m : found)
    if (m.mask == mask) return m;
  found.emplace_back();
  found.back().mask = mask;
  return found.back();
}

}  // namespace

Order::Order(const std::string& name)
    : down(name == "down"),
      drawn(name != "up" && name != "down"),
      random(static_cast<unsigned>(std::atoi(name.c_str()))) {}

void Order::arrange(std::vector<unsigned>* indices) {
  const unsigned n = static_cast<unsigned>(indices->size());
  for (unsigned i = 0; i < n; ++i) (*indices)[i] = down ? n - 1 - i : i;
  if (drawn) std::shuffle(indices->begin(), indices->end(), random);
}

Block& block() {
  Unwatched u;
  return *g_block;
}

Fiber& self() {
  Unwatched u;
  return *g_block->current;
}

void fail(const std::string& what) {
  const std::string at = "block " + std::to_string(block().index.x) + " thread " +
                         std::to_string(self().linear) + ": ";
  throw std::logic_error(at + what);
}

void yield() {
  Block& b = block();
  Fiber& f = self();
  leave(f.stack, b.scheduler_stack, f.done);
  if constexpr (kSanitized) {
    swapcontext(&f.context, &b.scheduler);
  } else if (_setjmp(f.jump) == 0) {
    _longjmp(b.scheduler_jump, 1);
  }
  arrive(f.stack, &b.scheduler_stack);
}

void meet(Meeting& m, unsigned expected, const char* what) {
  Unwatched u;
  const unsigned generation = m.generation;
  char* token = &m.token[generation & 1];
  release_token(token);
  if (++m.arrived == expected) {
    m.arrived = 0;
    ++m.generation;
  } else {
    Fiber& f = self();
    f.waits_for = &m;
    f.waits_generation = generation;
    f.waits_in = what;
    yield();
    f.waits_for = nullptr;
  }
  acquire_token(token);
}

void sync_threads() { meet(block().barrier, block().live, "__syncthreads"); }

unsigned lane() {
  Unwatched u;
  return self().linear % kWarp;
}

const unsigned char (*warp_exchange(unsigned mask, const void* value, size_t bytes,
                                    const char* what)) [kValueBytes] {
  Unwatched u;
  if ((mask >> lane() & 1) == 0) fail(std::string(what) + ": its own lane is not in the mask");
  Meeting& m = meeting_of(mask);
  if (m.arrived == 0) m.what = what;
  if (strcmp(m.what, what) != 0) fail(std::string(what) + " meets " + m.what);
  auto* slots = m.value[m.generation & 1];
  memcpy(slots[lane()], value, bytes);
  meet(m, static_cast<unsigned>(__builtin_popcount(mask)), what);
  return slots;
}

size_t next_shared_array() {
  static size_t n = 0;
  return ++n;
}

void* shared_array(size_t id, size_t bytes) {
  Unwatched u;
  Block& b = block();
  if (b.shared.size() <= id) b.shared.resize(id + 1);
  if (!b.shared[id]) {
    b.shared[id] = std::make_unique<char[]>(bytes);
    memset(b.shared[id].get(), 0xff, bytes);
  }
  return b.shared[id].get();
}

// Byte by byte: ThreadSanitizer does not see small memsets.
void async_copy(void* to, const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) static_cast<unsigned char*>(to)[i] = 0xff;
  Unwatched u;
  self().groups.back().push_back({to, from, bytes});
}

void async_commit() {
  Unwatched u;
  self().groups.emplace_back();
}

void async_wait(unsigned groups_left) {
  std::vector<AsyncCopy> landing;
  {
    Unwatched u;
    auto& groups = self().groups;
    for (; groups.size() > groups_left + 1; groups.erase(groups.begin()))
      landing.insert(landing.end(), groups.front().begin(), groups.front().end());
  }
  for (const AsyncCopy& c : landing)
    for (size_t i = 0; i < c.bytes; ++i)
      static_cast<unsigned char*>(c.to)[i] = static_cast<const unsigned char*>(c.from)[i];
}

void require_current(void* stream) {
  if (stream != g_stream) throw std::logic_error("launched on a stream that is not current");
}

void run_grid(dim3 grid, dim3 threads, size_t dynamic_shared, std::function<void()> body) {
  const char* name = std::getenv("HOST_CUDA_ORDER");
  Order order(name == nullptr ? "up" : name);
  static thread_local Block b;
  g_block = &b;
  b.block_dim = threads;
  b.grid_dim = grid;
  b.dynamic_bytes = dynamic_shared;
  b.body = std::move(body);
  if (b.shared.empty()) b.shared.resize(1);
  std::vector<unsigned> blocks(grid.count());
  order.arrange(&blocks);
  for (unsigned i : blocks) {
    b.index = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
    run_block(b, order);
  }
}

}  // namespace host_cuda

void host_cuda_make_current(void* stream) { host_cuda::g_stream = stream; }
