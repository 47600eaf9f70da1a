// What one instruction set provides. Each family of kernels has its own table, filled by the file
// of the same name under isa/.
#pragma once

#include "attention_kernels.h"
#include "backward_kernels.h"
#include "dictionary_kernels.h"
#include "linear_kernels.h"
#include "row_kernels.h"
#include "sampling_kernels.h"
#include "training_kernels.h"

namespace bitlens {

struct Kernels {
  const char* isa;
  const LinearKernels& linear;
  const LinearKernels& linear_bf16;  // for bf16 activations and bf16 weights
  const RowKernels& rows;
  const AttentionKernels& attention;
  const SamplingKernels& sampling;
  const BackwardKernels& backward;
  const DictionaryKernels& dictionary;
  const TrainingKernels& training;
};

// The tables of the instruction set in force: BITLENS_ISA if set, else the widest this CPU has.
const Kernels& kernels();

}  // namespace bitlens
