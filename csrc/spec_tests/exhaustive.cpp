// exp, log and tanh over all 2^32 floats: the largest error in ULP against fp64, how often a result
// falls as x rises, and a checksum of the bits that tests/csrc/test_exhaustive.py compares with
// every instruction set's. Exits 1 beyond 1 ULP, and where tanh falls.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>

#include "../spec/exp.h"
#include "../spec/log.h"
#include "../spec/tanh.h"
#include "golden_inputs.h"

namespace {

using bitlens::spec::bits_of;
using bitlens::spec::float_of;

constexpr int kThreads = 2;
constexpr uint64_t kFloats = uint64_t{1} << 32;
constexpr double kOverflow = 0x1.ffffffp+127;  // rounds to inf from here on

struct Result {
  double worst_ulp = 0.0;
  uint32_t worst_bits = 0;
  uint64_t wrong_class = 0;  // inf, NaN or zero where the other was due
  uint64_t falls = 0;        // f(x) below f of the float before x
  uint64_t checksum = 0;
};

// The distance of y from the truth in units of the last place of an fp32 number of its size.
double ulp_error(float y, double truth) {
  const int exponent = truth == 0.0 ? -126 : std::max(std::ilogb(truth), -126);
  return std::ldexp(std::fabs(static_cast<double>(y) - truth), 23 - exponent);
}

template <typename Function, typename Truth>
void scan(Function function, Truth truth_of, uint64_t begin, uint64_t end, Result* result) {
  float previous = function(float_of(static_cast<uint32_t>(begin)));
  for (uint64_t u = begin; u < end; ++u) {
    const uint32_t bits = static_cast<uint32_t>(u);
    const float x = float_of(bits);
    const float y = function(x);
    // Bits of negative floats ascend downwards; a half begins at +0 or at -0.
    result->falls += begin == 0 ? y < previous : y > previous;
    previous = y;
    const uint32_t y_bits = y != y ? 0x7fc00000u : bits_of(y);
    result->checksum += bitlens::spec_tests::mix64(u * bitlens::spec_tests::kGoldenRatio + y_bits);
    const double truth = truth_of(static_cast<double>(x));
    if (std::isnan(truth) || std::fabs(truth) >= kOverflow) {
      const float expected = static_cast<float>(truth);
      const bool same = std::isnan(truth) ? std::isnan(y) : y == expected;
      result->wrong_class += same ? 0 : 1;
      continue;
    }
    const double error = ulp_error(y, truth);
    if (!(error <= result->worst_ulp)) {
      result->worst_ulp = error;
      result->worst_bits = bits;
    }
  }
}

template <typename Function, typename Truth>
Result report(const char* name, Function function, Truth truth) {
  std::vector<Result> results(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      scan(function, truth, kFloats / kThreads * i, kFloats / kThreads * (i + 1), &results[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Result total;
  for (const Result& result : results) {
    total.checksum += result.checksum;
    total.wrong_class += result.wrong_class;
    total.falls += result.falls;
    if (!(result.worst_ulp <= total.worst_ulp)) {
      total.worst_ulp = result.worst_ulp;
      total.worst_bits = result.worst_bits;
    }
  }
  std::printf("%s max_ulp=%.6f at=%08x wrong_class=%llu falls=%llu checksum=%016llx\n", name,
              total.worst_ulp, total.worst_bits, static_cast<unsigned long long>(total.wrong_class),
              static_cast<unsigned long long>(total.falls),
              static_cast<unsigned long long>(total.checksum));
  std::fflush(stdout);
  return total;
}

bool accurate(const Result& found) { return found.worst_ulp <= 1.0 && found.wrong_class == 0; }

}  // namespace

int main() {
  const Result exp = report("exp", bitlens::spec::exp_f32, [](double x) { return std::exp(x); });
  const Result log = report("log", bitlens::spec::log_f32, [](double x) { return std::log(x); });
  const Result tanh =
      report("tanh", bitlens::spec::tanh_f32, [](double x) { return std::tanh(x); });
  return accurate(exp) && accurate(log) && accurate(tanh) && tanh.falls == 0 ? 0 : 1;
}
