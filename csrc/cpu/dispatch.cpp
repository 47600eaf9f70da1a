#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace bitlens {
namespace {

// The tables of one instruction set whose bf16 products run on its own FMAs.
#define BITLENS_KERNELS(ns)                                                                        \
  Kernels {                                                                                        \
    #ns, ns::linear_kernels(Order::kChain), ns::linear_kernels(Order::kPairs),                     \
        &ns::linear_kernels(Order::kPairs), &ns::linear_kernels(Order::kPairs), ns::row_kernels(), \
        ns::attention_kernels(), ns::sampling_kernels(), ns::backward_kernels(),                   \
        ns::dictionary_kernels(), ns::training_kernels()                                           \
  }

// The same with other kernels for bf16 activations and weights.
Kernels with_products(Kernels table, const char* isa, const LinearKernels* few,
                      const LinearKernels* many) {
  table.isa = isa;
  table.few_bf16 = few;
  table.many_bf16 = many;
  return table;
}

#if defined(__x86_64__)
// Clang's __builtin_cpu_supports does not know the name "f16c" in all versions.
bool supports_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

std::vector<Kernels> find_tables() {
  std::vector<Kernels> tables = {BITLENS_KERNELS(generic)};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && supports_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx2) tables.push_back(BITLENS_KERNELS(avx2));
  if (!avx512) return tables;
  const Kernels fma = BITLENS_KERNELS(avx512);
  tables.push_back(fma);
  if (__builtin_cpu_supports("avx512bf16") && avx512_bf16::adds_in_order()) {
    const LinearKernels* pairs = &avx512_bf16::linear_kernels();
    tables.push_back(with_products(fma, "avx512_bf16", pairs, pairs));
  }
  if (amx::request_tiles() && amx::adds_in_order())
    tables.push_back(with_products(fma, "amx", nullptr, &amx::linear_kernels()));
#endif
  return tables;
}

const std::vector<Kernels>& available_tables() {
  static const std::vector<Kernels> tables = find_tables();
  return tables;
}

constexpr char kAutomatic[] = "auto";

const Kernels& automatic() {
  const Kernels& widest = available_tables().back();
  static const Kernels table = with_products(widest, widest.isa, nullptr, nullptr);
  return table;
}

const Kernels* find(const std::string& name) {
  if (name == kAutomatic) return &automatic();
  std::string known = kAutomatic;
  for (const Kernels& table : available_tables()) {
    if (name == table.isa) return &table;
    known += std::string(", ") + table.isa;
  }
  throw std::invalid_argument("instruction set '" + name +
                              "' is not available here; choose one of: " + known);
}

const Kernels* initial() {
  const char* forced = std::getenv("BITLENS_ISA");
  if (forced == nullptr || *forced == '\0') return &automatic();
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
  for (const Kernels& table : available_tables()) names.emplace_back(table.isa);
  return names;
}

void set_isa(const std::string& name) { current().store(find(name)); }

const Kernels& kernels_of(const std::string& name) { return *find(name); }

std::string isa_setting() {
  const Kernels& table = kernels();
  return &table == &automatic() ? kAutomatic : table.isa;
}

}  // namespace bitlens
