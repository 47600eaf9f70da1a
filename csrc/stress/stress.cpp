// Every kernel on every instruction set and several thread counts, from one caller and from two at
// once; `make sanitize` builds it with ASan, UBSan and TSan. All runs must agree bit for bit.
// Exits 1 if they do not.
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>

#include "cpu/dispatch.h"
#include "cpu/threads.h"
#include "runs.h"

namespace bitlens {
namespace {

Trace run_all(bool slow) {
  Trace trace;
  for (DType dtype : {DType::F32, DType::BF16}) {
    for (int format = 0; format <= 5; ++format)
      for (int64_t m : {1, 3, 37})
        if (!slow || m < 37) run_linear(trace, static_cast<Format>(format), dtype, m);
    run_rows(trace, dtype);
    run_shared_pages(trace, dtype);
    run_backward(trace, dtype);
    run_training(trace, dtype);
    run_dictionary(trace, dtype == DType::F32 ? 300 : 1);
    for (int64_t window : {0, 50})
      for (float cap : {0.0f, 0.25f}) run_attention(trace, dtype, cap, window);
  }
  run_fold(trace);
  run_bank(trace);
  for (int64_t n : {1, 17, 1031}) {
    run_preparation(trace, n);
    run_sampling(trace, n);
    run_typical(trace, n);
  }
  return trace;
}

bool report(const std::string& what, const Trace& found, const Trace& expected) {
  const bool same = found.bytes == expected.bytes && found.same_paths;
  std::printf("%-24s %8zu bytes %s\n", what.c_str(), found.bytes.size(),
              same ? "same" : "DIFFERENT");
  return same;
}

int stress() {
  bool ok = true;
  set_num_threads(1);
  const Trace expected = run_all(false), expected_short = run_all(true);
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const bool slow = isa == "generic";  // without FMA instructions
    const Trace& reference = slow ? expected_short : expected;
    for (int threads : {1, 2, 5}) {
      set_num_threads(threads);
      ok &= report(isa + ", " + std::to_string(threads) + " threads", run_all(slow), reference);
    }
    Trace first, second;
    std::thread one([&] { first = run_all(slow); }), two([&] { second = run_all(slow); });
    one.join();
    two.join();
    ok &= report(isa + ", first caller", first, reference);
    ok &= report(isa + ", second caller", second, reference);
  }
  set_num_threads(1);  // ends the workers
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace bitlens

int main() { return bitlens::stress(); }
