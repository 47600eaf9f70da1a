#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace bitlens {

// Instruction sets this build has and this CPU can run, narrowest first.
std::vector<std::string> available_isas();

// Chooses one by name, or with "auto" the widest with the fastest bf16 products; throws
// std::invalid_argument naming the choices if it is not available.
void set_isa(const std::string& name);

// The tables of one by name; throws as set_isa.
const Kernels& kernels_of(const std::string& name);

// What set_isa was given last; at first, BITLENS_ISA or "auto".
std::string isa_setting();

}  // namespace bitlens
