#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace bitlens {
namespace {

const Kernels& generic_table() {
  static const Kernels table = {"generic",
                                generic::linear_kernels(),
                                generic::linear_kernels(),
                                generic::row_kernels(),
                                generic::attention_kernels(),
                                generic::sampling_kernels(),
                                generic::backward_kernels(),
                                generic::dictionary_kernels(),
                                generic::training_kernels()};
  return table;
}

#if defined(__x86_64__)
const Kernels& avx2_table() {
  static const Kernels table = {"avx2",
                                avx2::linear_kernels(),
                                avx2::linear_kernels(),
                                avx2::row_kernels(),
                                avx2::attention_kernels(),
                                avx2::sampling_kernels(),
                                avx2::backward_kernels(),
                                avx2::dictionary_kernels(),
                                avx2::training_kernels()};
  return table;
}

const Kernels& avx512_table() {
  static const Kernels table = {"avx512",
                                avx512::linear_kernels(),
                                avx512::linear_kernels(),
                                avx512::row_kernels(),
                                avx512::attention_kernels(),
                                avx512::sampling_kernels(),
                                avx512::backward_kernels(),
                                avx512::dictionary_kernels(),
                                avx512::training_kernels()};
  return table;
}

const Kernels& avx512_bf16_table() {
  static const Kernels table = {"avx512_bf16",
                                avx512::linear_kernels(),
                                avx512_bf16::linear_kernels(),
                                avx512::row_kernels(),
                                avx512::attention_kernels(),
                                avx512::sampling_kernels(),
                                avx512::backward_kernels(),
                                avx512::dictionary_kernels(),
                                avx512::training_kernels()};
  return table;
}

// Clang's __builtin_cpu_supports does not know the name "f16c" in all versions.
bool supports_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

std::vector<const Kernels*> find_tables() {
  std::vector<const Kernels*> tables = {&generic_table()};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && supports_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx2) tables.push_back(&avx2_table());
  if (avx512) tables.push_back(&avx512_table());
  if (avx512 && __builtin_cpu_supports("avx512bf16") && avx512_bf16::adds_in_order())
    tables.push_back(&avx512_bf16_table());
#endif
  return tables;
}

const std::vector<const Kernels*>& available_tables() {
  static const std::vector<const Kernels*> tables = find_tables();
  return tables;
}

const Kernels* find(const std::string& name) {
  std::string known;
  for (const Kernels* table : available_tables()) {
    if (name == table->isa) return table;
    known += std::string(known.empty() ? "" : ", ") + table->isa;
  }
  throw std::invalid_argument("instruction set '" + name +
                              "' is not available here; choose one of: " + known);
}

const Kernels* initial() {
  const char* forced = std::getenv("BITLENS_ISA");
  if (forced == nullptr || *forced == '\0') return available_tables().back();
  try {
    return find(forced);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("BITLENS_ISA: ") + error.what());
  }
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> table{initial()};
  return table;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* table : available_tables()) names.emplace_back(table->isa);
  return names;
}

void set_isa(const std::string& name) { current().store(find(name)); }

}  // namespace bitlens
