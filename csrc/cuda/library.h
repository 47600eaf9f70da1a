// The C interface of libbitlens_cuda: what model/ops/cuda calls. All data pointers are the
// device's, `stream` is a cudaStream_t, workspace comes from the caller, dtypes and formats are the
// codes of csrc/cpu/types.h, strides are in elements. A function returns 0, or the code of an error
// that blc_error_text explains. Nothing here waits for the device.
#pragma once

#include <cstdint>

#include "../spec/sampling_records.h"

#if defined(_WIN32)
#define BLC_API extern "C" __declspec(dllexport)
#else
#define BLC_API extern "C" __attribute__((visibility("default")))
#endif

namespace bitlens::cuda {

constexpr int kWorkspaceTooSmall = -1;

// x_max of a row is found here.
using SampleRow = spec::SamplingRow;
using SampleEdits = spec::LogitEdits;

// Choice of csrc/cpu/sampling.h, and what the log-probability is made of. A key of 0: not valid.
struct Sampled {
  uint64_t key, mass, mass_before, threshold_key, typical_key;
  uint32_t centre, kept, rank, reserved;
  uint64_t total;
  float x_max, logprob;
};
static_assert(sizeof(Sampled) == 72);

// The chosen rows of a slice of the vocabulary: row i is x + indices[i] * n, described by
// rows[indices[i]]; what follows are `Scored`, `Mass` and `TypicalSums` of csrc/cpu.
struct SampleSlice {
  const float* x;
  int64_t n;
  uint32_t first_id;
  const SampleRow* rows;
  const int64_t* indices;
  int64_t count;
};
struct SampleScored {
  int64_t score;
  uint64_t key;
};
struct SampleMass {
  uint64_t support, kept;
};
struct SampleGaps {
  uint64_t mass, low, high;
};

// A feature that is active in a row.
struct Entry {
  float value;
  int32_t index;
};
static_assert(sizeof(Entry) == 8);

}  // namespace bitlens::cuda

BLC_API const char* blc_error_text(int code);
BLC_API const char* blc_numerics_version();
BLC_API int blc_kernel_count();
BLC_API const char* blc_kernel_name(int kernel);
BLC_API int64_t blc_launches(int kernel);

// The version of the driver's CUDA and of the runtime that is linked in, 1000 * major + 10 * minor;
// 0 where there is none. Devices: -1 if they cannot be asked for.
BLC_API int blc_driver_version();
BLC_API int blc_runtime_version();
BLC_API int blc_device_count();
// 10 * major + minor of a device's compute capability, and whether a kernel of this build runs
// there.
BLC_API int blc_device_architecture(int device);
BLC_API int blc_device_is_supported(int device);

BLC_API int blc_rms_norm(const void* x, int64_t x_stride, int x_dtype, const void* residual,
                         const float* weight, int64_t rows, int64_t heads, int64_t d, float eps,
                         int stepwise, void* out, int64_t out_stride, int out_dtype,
                         void* residual_out, float* scale_out, float* normalized_out, void* stream);
BLC_API int blc_normalize(const void* x, int dtype, const float* scale, int64_t rows, int64_t d,
                          float* out, void* stream);
BLC_API int blc_norm_weight(const float* normalized, const float* weight, int64_t rows, int64_t d,
                            void* out, int dtype, void* stream);

BLC_API int blc_add(const void* x, int dtype, const void* y, int y_dtype, int64_t count, void* out,
                    void* stream);
BLC_API int blc_cast(const void* x, int dtype, int64_t count, void* out, int out_dtype,
                     void* stream);
BLC_API int blc_scaled(const void* x, int dtype, int64_t count, float factor, void* out,
                       int out_dtype, void* stream);
BLC_API int blc_scale_scores(const float* x, float scale, int64_t count, void* out, int dtype,
                             void* stream);
BLC_API int blc_soft_cap(const float* x, int64_t count, float cap, float* out, void* stream);
BLC_API int blc_gated_act(int act, const void* gate, int64_t gate_stride, const void* up,
                          int64_t up_stride, int64_t rows, int64_t m, int dtype, int stepwise,
                          void* out, int64_t out_stride, void* stream);

BLC_API int blc_linear(const void* x, int x_dtype, int64_t m, int64_t k, int64_t x_stride,
                       const uint8_t* panels, int format, int64_t n, const float* bias, void* out,
                       int out_dtype, int64_t out_stride, void* stream);
BLC_API int blc_embedding(const int64_t* tokens, int64_t count, const uint8_t* panels, int format,
                          int64_t k, float scale, void* out, int dtype, void* stream);

BLC_API int blc_rope(const void* x, int dtype, int64_t rows, int64_t heads, int64_t d_head,
                     int64_t x_stride, const int64_t* positions, const float* cos, const float* sin,
                     int stepwise, void* out, int64_t out_stride, void* stream);
BLC_API int blc_kv_write(const void* k, const void* v, int dtype, int64_t rows, int64_t k_stride,
                         int64_t v_stride, const int64_t* starts, const int64_t* past,
                         int64_t batch, int64_t kv_heads, int64_t d_head, const int32_t* table,
                         int64_t width, void* k_pages, void* v_pages, void* stream);
BLC_API int blc_rope_kv_write(void* qkv, int dtype, int64_t rows, int64_t stride, int64_t heads,
                              const float* cos, const float* sin, int stepwise,
                              const int64_t* starts, const int64_t* past, int64_t batch,
                              int64_t kv_heads, int64_t d_head, const int32_t* table, int64_t width,
                              void* k_pages, void* v_pages, void* stream);

// Floats of a workspace that holds so many rows of each sequence at a time; one row is the least.
BLC_API int64_t blc_attention_workspace(int64_t batch, int64_t rows, int64_t heads, int64_t d_head,
                                        int64_t keys);
// max_rows: of the sequence with most new rows; keys: of the longest sequence.
BLC_API int blc_attention(const void* q, int dtype, int64_t q_stride, int64_t heads,
                          int64_t kv_heads, int64_t d_head, float scale, float cap, int64_t window,
                          int stepwise, const int64_t* starts, const int64_t* past, int64_t batch,
                          int64_t max_rows, int64_t keys, const int32_t* table, int64_t width,
                          void* k_pages, void* v_pages, void* out, int64_t out_stride, float* lse,
                          float* workspace, int64_t floats, void* stream);
// scores [rows, heads, keys], -inf where masked.
BLC_API int blc_attention_scores(const void* q, int dtype, int64_t q_stride, int64_t heads,
                                 int64_t kv_heads, int64_t d_head, float scale, float cap,
                                 int64_t window, const int64_t* starts, const int64_t* past,
                                 int64_t batch, int64_t max_rows, int64_t keys,
                                 const int32_t* table, int64_t width, void* k_pages, float* scores,
                                 void* stream);
// pattern [rows, heads, keys], read where visible.
BLC_API int blc_attention_values(float* pattern, int dtype, int64_t heads, int64_t kv_heads,
                                 int64_t d_head, int64_t window, const int64_t* starts,
                                 const int64_t* past, int64_t batch, int64_t max_rows, int64_t keys,
                                 const int32_t* table, int64_t width, void* v_pages, void* out,
                                 int64_t out_stride, float* workspace, int64_t floats,
                                 void* stream);

BLC_API int blc_softmax(const float* x, int64_t rows, int64_t n, float* out, void* stream);
BLC_API int blc_logsumexp(const float* x, int64_t rows, int64_t n, float* out, void* stream);
BLC_API int blc_log_softmax(const float* x, int64_t rows, int64_t n, float* out, void* stream);
// `bad`, an int that is 0 before, becomes 1 if a target is neither a class nor ignored.
BLC_API int blc_cross_entropy(const void* logits, int dtype, const int64_t* targets, int64_t rows,
                              int64_t n, int64_t ignored, float smoothing, float* losses, int* bad,
                              float* mean, void* stream);

// What a gradient of an operation's output becomes at its inputs: csrc/spec/backward.h. Rows are
// dense; gradients of x and the scale are fp32 unless a dtype is given.
BLC_API int blc_normalize_backward(const float* dn, const float* x, const float* scale,
                                   int64_t rows, int64_t d, float* dx, float* dscale, void* stream);
BLC_API int blc_rms_scale_backward(const float* dscale, const float* x, const float* scale,
                                   int64_t rows, int64_t d, float* dx, void* stream);
BLC_API int blc_rms_norm_backward(const void* dy, int dtype, const void* x, int x_dtype,
                                  const float* weight, int64_t rows, int64_t d, float eps, void* dx,
                                  void* stream);
BLC_API int blc_softmax_backward(const float* p, const float* dp, int64_t rows, int64_t n,
                                 float* ds, void* stream);
BLC_API int blc_soft_cap_backward(const float* dy, const float* y, int64_t count, float cap,
                                  float* dx, void* stream);
BLC_API int blc_gated_act_backward(int act, const void* gate, const void* up, const void* dpost,
                                   int64_t count, int dtype, void* dgate, void* dup, void* stream);
// out [keys, kv_heads, d_head]: sums of weight [queries, heads, keys] times x [queries, heads,
// d_head] over the queries and heads of a group.
BLC_API int blc_attention_key_sums(const float* weight, const void* x, int dtype, int64_t queries,
                                   int64_t heads, int64_t kv_heads, int64_t keys, int64_t d_head,
                                   float* out, void* stream);

// scaled [count, n] is workspace. Of the listed[row] first tokens that have a weight, at most
// `width`, the order keys go to keys [count, width], in no order, zeros behind them; null: no
// lists.
BLC_API int blc_sample(const float* logits, const float* temperature,
                       const bitlens::cuda::SampleRow* rows, int64_t count, int64_t n,
                       float* scaled, bitlens::cuda::Sampled* out, const int32_t* listed,
                       int64_t width, uint64_t* keys, void* stream);
// ids first_id and on of a row; others are passed over.
BLC_API int blc_sample_edit(float* row, int64_t n, int64_t first_id,
                            const bitlens::cuda::SampleEdits* edits, void* stream);

// Sampling over slices: the functions of csrc/cpu/sampling.h and csrc/cpu/typical.h. Centres
// [count] bring tokens into typical order; null: order keys, of which a histogram has the upper
// half. Keys of sample_top [count, width] are zeros before, and come in no order.
BLC_API int blc_sample_prepare(const float* logits, const float* temperature, int64_t rows,
                               int64_t n, float* x, float* max, int32_t* bad, void* stream);
BLC_API int blc_sample_perturbed(const bitlens::cuda::SampleSlice* slice, int64_t m,
                                 const uint64_t* thresholds, bitlens::cuda::SampleScored* best,
                                 bitlens::cuda::SampleMass* mass, void* stream);
BLC_API int blc_sample_top(const bitlens::cuda::SampleSlice* slice, const int64_t* k, int64_t width,
                           uint64_t* keys, void* stream);
BLC_API int blc_sample_before(const bitlens::cuda::SampleSlice* slice, const uint32_t* centres,
                              const uint64_t* keys, int64_t width, uint64_t* mass, uint32_t* count,
                              void* stream);
BLC_API int blc_sample_histogram(const bitlens::cuda::SampleSlice* slice, const uint32_t* centres,
                                 const uint64_t* prefix, int shift, uint64_t* mass, uint32_t* count,
                                 void* stream);
BLC_API int blc_sample_nth_tie(const bitlens::cuda::SampleSlice* slice, const uint32_t* order,
                               const int64_t* nth, uint32_t* ids, void* stream);
BLC_API int blc_sample_mask(const bitlens::cuda::SampleSlice* slice, const uint32_t* centres,
                            const uint64_t* last, float* out, void* stream);
BLC_API int blc_sample_typical_sums(const bitlens::cuda::SampleSlice* slice,
                                    bitlens::cuda::SampleGaps* out, void* stream);

// Dictionaries (csrc/spec/dictionary.h), all in fp32. The k first of each row of x [rows, n] by
// ascending index; index -1 and value 0 where there are fewer.
BLC_API int blc_top_k(const float* x, int64_t rows, int64_t n, int64_t k, float* values,
                      int32_t* indices, void* stream);
// In one launch, which of the outputs of x [rows, d] times a packed weight [n, d] plus bias are
// kept: the k first of each row, as above, or those above thresholds [n]. Features are shared out
// to `ranges`; counts [rows, ranges] and entries [rows, ranges, capacity] are what each leaves, by
// ascending index; a count beyond the capacity: the rest was left out. For the k first they are
// workspace, of a capacity of k + 64 at least, and tickets, one a row, are zeros before.
BLC_API int64_t blc_encode_ranges(int64_t rows, int64_t n, int64_t blocks);
BLC_API int blc_encode_top_k(const float* x, int64_t rows, int64_t d, const uint8_t* panels,
                             int format, int64_t n, const float* bias, int64_t k, int64_t ranges,
                             int64_t capacity, bitlens::cuda::Entry* entries, int32_t* counts,
                             uint32_t* tickets, float* values, int32_t* indices, void* stream);
BLC_API int blc_encode_above(const float* x, int64_t rows, int64_t d, const uint8_t* panels,
                             int format, int64_t n, const float* bias, const float* thresholds,
                             int64_t ranges, int64_t capacity, bitlens::cuda::Entry* entries,
                             int32_t* counts, void* stream);
// Row r of the sums has entries starts[r] .. starts[r + 1]; an index of -1 is passed over.
BLC_API int blc_weighted_sums(const float* coefs, const int32_t* indices, const int64_t* starts,
                              int64_t rows, const float* table, int64_t d, const float* bias,
                              float* out, void* stream);
BLC_API int blc_gathered_dots(const float* x, const int32_t* indices, const int64_t* starts,
                              int64_t rows, int64_t entries, const float* table, int64_t d,
                              float* out, void* stream);
BLC_API int blc_sums_of_squares(const float* x, int64_t rows, int64_t d, float* out, void* stream);
BLC_API int blc_unit_rows(float* w, int64_t rows, int64_t d, void* stream);
