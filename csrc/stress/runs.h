// The kernels on awkward sizes, in buffers without slack; each run adds its results to a trace.
#pragma once

#include "trace.h"

namespace bitlens {

void run_linear(Trace& trace, Format format, DType dtype, int64_t m);
void run_rows(Trace& trace, DType dtype);
// Two sequences, one with a cached prefix, over pages in scrambled order.
void run_attention(Trace& trace, DType dtype, float cap, int64_t window);
// Callers that read the same sealed pages, and write to their own in the same pool meanwhile.
void run_shared_pages(Trace& trace, DType dtype);

void run_backward(Trace& trace, DType dtype);
void run_training(Trace& trace, DType dtype);

// Logits of three rows at every temperature, in every type, edited; the slice's first id is odd.
void run_preparation(Trace& trace, int64_t n);
void run_sampling(Trace& trace, int64_t n);
void run_typical(Trace& trace, int64_t n);

void run_fold(Trace& trace);
void run_bank(Trace& trace);
void run_dictionary(Trace& trace, int64_t m);

}  // namespace bitlens
