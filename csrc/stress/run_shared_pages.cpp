#include <thread>

#include "cpu/attention.h"
#include "cpu/kv_pages.h"
#include "runs.h"

namespace bitlens {
namespace {

constexpr int64_t kHeads = 4, kGroups = 2, kHead = 24, kStride = kGroups * kHead;
constexpr int64_t kSealed = 2, kOwn = 2, kCallers = 3, kMaxPages = kSealed + kOwn;
constexpr int64_t kPages = kSealed + kCallers * kOwn, kPast = kSealed * kPageKeys;

// Keys and values of a pool, whose first pages are sealed: full, and everybody's.
struct Pool {
  DType dtype;
  std::vector<uint8_t> k, v;

  explicit Pool(DType type) : dtype(type) {
    Random random(17);
    const auto size = static_cast<size_t>(kPages * kPageKeys * kStride) * dtype_bytes(dtype);
    k.resize(size);
    v.resize(size);
    const std::vector<uint8_t> kept = random.activations(kPast * kStride, dtype);
    const std::vector<int32_t> table = {1, 0, 0, 0};
    const std::vector<int64_t> starts = {0, kPast}, past = {0};
    kv_write({starts.data(), past.data(), 1}, kept.data(), kStride, kept.data(), kStride,
             pages(table));
  }

  KVPages pages(const std::vector<int32_t>& table) {
    return {dtype, kGroups, kHead, table.data(), kMaxPages, k.data(), v.data()};
  }
};

// One caller's sequence after the sealed pages: 40 tokens, then one at a time, over a page's end.
Trace go_on(Pool& pool, int64_t caller) {
  Trace trace;
  Random random(static_cast<uint32_t>(100 + caller));
  const auto own = static_cast<int32_t>(kSealed + caller * kOwn);
  const std::vector<int32_t> table = {1, 0, own + 1, own};
  for (int64_t done = 0; done < 70;) {
    const int64_t n = done == 0 ? 40 : 1;
    const std::vector<int64_t> starts = {0, n}, past = {kPast + done};
    const RaggedRows rows = {starts.data(), past.data(), 1};
    const std::vector<uint8_t> kv = random.activations(n * kStride, pool.dtype);
    const std::vector<uint8_t> q = random.activations(n * kHeads * kHead, pool.dtype);
    std::vector<uint8_t> out(q.size());
    const KVPages pages = pool.pages(table);
    kv_write(rows, kv.data(), kStride, kv.data(), kStride, pages);
    attention({rows, pages, kHeads, 0.2f, 0.0f, 0}, q.data(), kHeads * kHead, out.data(),
              kHeads * kHead, nullptr);
    trace.add(out);
    done += n;
  }
  return trace;
}

}  // namespace

void run_shared_pages(Trace& trace, DType dtype) {
  Pool together(dtype), alone(dtype);
  std::vector<Trace> found(kCallers);
  std::vector<std::thread> callers;
  for (int64_t i = 0; i < kCallers; ++i)
    callers.emplace_back([&, i] { found[static_cast<size_t>(i)] = go_on(together, i); });
  for (std::thread& caller : callers) caller.join();
  for (int64_t i = 0; i < kCallers; ++i) {
    const Trace& each = found[static_cast<size_t>(i)];
    trace.same_paths &= each.bytes == go_on(alone, i).bytes;
    trace.add(each.bytes);
  }
}

}  // namespace bitlens
