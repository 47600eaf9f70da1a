// Products of bf16 activations and bf16 weights. FMAs, vdpbf16ps and tiles give the same bits
// (bf16_pairs.h), so the fastest is taken, which the name of an instruction set does not tell:
// vdpbf16ps runs at twice the speed of FMAs on one CPU and at half of it on another.
#pragma once

#include <string>
#include <vector>

#include "linear_kernels.h"

namespace bitlens {

struct Bf16Products {
  struct Timed {
    std::string isa;
    double few, many;  // GFLOP/s of one row and of many, 0 where it has no kernel of its own
  };
  std::string few, many;     // the instruction sets that are taken
  std::vector<Timed> timed;  // empty if `choose_bf16_products` said which
};

// The kernels in force for few rows and for many, timed at the first call (a few milliseconds)
// where no instruction set is named.
const LinearKernels& few_bf16_rows();
const LinearKernels& many_bf16_rows();

// What is chosen where no instruction set is named.
const Bf16Products& bf16_products();

// Takes them by name, for instance as timed by another process, instead of timing them. False if
// they are chosen already, or a set is not here.
bool choose_bf16_products(const std::string& few, const std::string& many);

}  // namespace bitlens
