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
  const LinearKernels& linear;       // for fp32 activations
  const LinearKernels& linear_bf16;  // for bf16 activations, weights of any format
  // For bf16 activations and weights: few rows of them and many; null: whichever is the fastest
  // here of those that give the same bits (bf16_products.h).
  const LinearKernels* few_bf16;
  const LinearKernels* many_bf16;
  const RowKernels& rows;
  const AttentionKernels& attention;
  const SamplingKernels& sampling;
  const BackwardKernels& backward;
  const DictionaryKernels& dictionary;
  const TrainingKernels& training;
};

// The tables of the instruction set in force: the one that set_isa or BITLENS_ISA names, else the
// widest this CPU has with the fastest bf16 products.
const Kernels& kernels();

}  // namespace bitlens
