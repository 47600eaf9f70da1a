// What a rank does with its slice of the vocabulary between the rounds of model/sampling/rounds.py:
// sums, counts and extremes of integers, a thread block a row. csrc/cpu/sampling.h and
// csrc/cpu/typical.h say what each is; what has centres is in typical order.
#include "../spec/typical.h"
#include "compact.h"
#include "library.h"
#include "sampling_tokens.h"

namespace bitlens::cuda {
namespace {

static_assert(kRowThreads == kSampleThreads);

__device__ Tokens tokens_of(const SampleSlice& slice) {
  const int64_t row = slice.indices[blockIdx.x];
  return {slice.x + row * slice.n, slice.n, slice.first_id, slice.rows[row]};
}

// Where a key stands: the order key, or its typical key.
__device__ uint64_t place_of(const Tokens& tokens, const uint32_t* centres, uint64_t key) {
  if (centres == nullptr) return key;
  return spec::typical_key_of(key, tokens.row.x_max, centres[blockIdx.x]);
}

__global__ void __launch_bounds__(kSampleThreads)
    sample_prepare(const float* logits, const float* temperature, int64_t n, float* x, float* max,
                   int32_t* bad) {
  BL_SHARED(SampleShared, shared, 1);
  const int64_t at = blockIdx.x * n;
  float x_max;
  const bool good = prepare(logits + at, n, temperature[blockIdx.x], x + at, shared, &x_max);
  if (threadIdx.x == 0) max[blockIdx.x] = x_max, bad[blockIdx.x] = good ? 0 : 1;
}

// A token among those of largest score, of equals the smallest id: smaller is earlier.
struct Place {
  Counter rank, id;

  __device__ bool before(const Place& other) const {
    return rank < other.rank || (rank == other.rank && id < other.id);
  }
};

// The first token behind `last`, or the first of all; its id is ~0 where there is none.
__device__ Place next_best(const Tokens& tokens, uint64_t threshold, bool is_first,
                           const Place& last, SampleShared* shared) {
  const spec::NoiseKey noise = {tokens.row.seed, tokens.row.position, tokens.row.draw,
                                tokens.row.domain};
  Place mine = {~Counter{0}, ~Counter{0}};
  for (int64_t i = threadIdx.x; i < tokens.n; i += kSampleThreads) {
    if (tokens.key(i) < threshold || tokens.kept(i) == 0) continue;
    const uint64_t r = spec::noise_bits(noise, tokens.id(i));
    const int64_t score = spec::score(tokens.x[i] - tokens.row.x_max, r);
    const Place found = {~(static_cast<Counter>(score) ^ (Counter{1} << 63)), tokens.id(i)};
    if ((is_first || last.before(found)) && found.before(mine)) mine = found;
  }
  const Counter rank = block_min(shared, mine.rank);
  return {rank, block_min(shared, mine.rank == rank ? mine.id : ~Counter{0})};
}

__global__ void __launch_bounds__(kSampleThreads)
    sample_perturbed(SampleSlice slice, int64_t m, const uint64_t* thresholds, SampleScored* best,
                     SampleMass* mass) {
  BL_SHARED(SampleShared, shared, 1);
  const Tokens tokens = tokens_of(slice);
  const uint64_t threshold = thresholds == nullptr ? 0 : thresholds[blockIdx.x];
  Place place = {0, 0};
  for (int64_t j = 0; j < m; ++j) {
    place = next_best(tokens, threshold, j == 0, place, shared);
    const bool there = place.id != ~Counter{0};
    const int64_t i = static_cast<int64_t>(place.id - slice.first_id);
    if (threadIdx.x == 0)
      best[blockIdx.x * m + j] = {static_cast<int64_t>(~place.rank ^ (Counter{1} << 63)),
                                  there ? tokens.key(i) : 0};
  }
  if (mass == nullptr) return;
  const Counter support = sum_over(shared, tokens.n, [&](int64_t i) { return tokens.weight(i); });
  const Counter kept = sum_over(shared, tokens.n, [&](int64_t i) { return tokens.kept(i); });
  if (threadIdx.x == 0) mass[blockIdx.x] = {support, kept};
}

__global__ void __launch_bounds__(kSampleThreads)
    sample_top(SampleSlice slice, const int64_t* k, int64_t width, uint64_t* keys) {
  BL_SHARED(SampleShared, shared, 1);
  list_first(tokens_of(slice), static_cast<Counter>(k[blockIdx.x]), shared,
             keys + blockIdx.x * width);
}

__global__ void __launch_bounds__(kSampleThreads)
    sample_before(SampleSlice slice, const uint32_t* centres, const uint64_t* keys, int64_t width,
                  uint64_t* mass, uint32_t* count) {
  BL_SHARED(SampleShared, shared, 1);
  const Tokens tokens = tokens_of(slice);
  for (int64_t c = blockIdx.x * width; c < (blockIdx.x + 1) * width; ++c) {
    const uint64_t bound = place_of(tokens, centres, keys[c]);
    const auto amount = [&](int64_t i) {
      const Counter w = tokens.kept(i);
      return w != 0 && place_of(tokens, centres, tokens.key(i)) > bound ? w : Counter{0};
    };
    const Counter sum = sum_over(shared, tokens.n, amount);
    const Counter number =
        sum_over(shared, tokens.n, [&](int64_t i) { return static_cast<Counter>(amount(i) != 0); });
    if (threadIdx.x == 0) mass[c] = sum, count[c] = static_cast<uint32_t>(number);
  }
}

// By 8 bits of the order bits, or of the typical key; those above are `prefix`.
__global__ void __launch_bounds__(kSampleThreads)
    sample_histogram(SampleSlice slice, const uint32_t* centres, const uint64_t* prefix, int shift,
                     uint64_t* mass, uint32_t* count) {
  BL_SHARED(SampleShared, masses, 1);
  BL_SHARED(SampleShared, numbers, 1);
  const Tokens tokens = tokens_of(slice);
  masses->bins[threadIdx.x] = 0;
  numbers->bins[threadIdx.x] = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < tokens.n; i += kSampleThreads) {
    const Counter w = tokens.kept(i);
    if (w == 0) continue;
    const uint64_t place = place_of(tokens, centres, tokens.key(i));
    const uint64_t bits = centres == nullptr ? place >> 32 : place;
    if (bits >> (shift + 8) != prefix[blockIdx.x]) continue;
    atomicAdd(&masses->bins[bits >> shift & 255u], w);
    atomicAdd(&numbers->bins[bits >> shift & 255u], Counter{1});
  }
  __syncthreads();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kSampleThreads + threadIdx.x;
  mass[at] = masses->bins[threadIdx.x];
  count[at] = static_cast<uint32_t>(numbers->bins[threadIdx.x]);
}

__global__ void __launch_bounds__(kSampleThreads)
    sample_nth_tie(SampleSlice slice, const uint32_t* order, const int64_t* nth, uint32_t* ids) {
  BL_SHARED(unsigned, counts, kRowWarps);
  const Tokens tokens = tokens_of(slice);
  if (threadIdx.x == 0) ids[blockIdx.x] = ~0u;
  __syncthreads();
  compact(
      tokens.n, counts,
      [&](int64_t i) { return spec::order_bits(tokens.x[i]) == order[blockIdx.x]; },
      [&](int64_t slot, int64_t i) {
        if (slot + 1 == nth[blockIdx.x]) ids[blockIdx.x] = tokens.id(i);
      });
}

// The rows again, -inf where a token is not kept or stands behind `last`.
__global__ void __launch_bounds__(kSampleThreads)
    sample_mask(SampleSlice slice, const uint32_t* centres, const uint64_t* last, float* out) {
  const Tokens tokens = tokens_of(slice);
  for (int64_t i = threadIdx.x; i < tokens.n; i += kSampleThreads) {
    const bool stays =
        tokens.kept(i) != 0 && place_of(tokens, centres, tokens.key(i)) >= last[blockIdx.x];
    out[blockIdx.x * tokens.n + i] = stays ? tokens.x[i] : spec::float_of(0xff800000u);
  }
}

__global__ void __launch_bounds__(kSampleThreads)
    sample_typical_sums(SampleSlice slice, SampleGaps* out) {
  BL_SHARED(SampleShared, shared, 1);
  const GapSums sums = gap_sums(tokens_of(slice), shared,
                                [](const Tokens& tokens, int64_t i) { return tokens.kept(i); });
  if (threadIdx.x == 0)
    out[blockIdx.x] = {sums.mass, static_cast<uint64_t>(sums.gaps),
                       static_cast<uint64_t>(sums.gaps >> 64)};
}

template <typename... Parameters, typename... Arguments>
int launch_rows(Kernel name, void (*kernel)(SampleSlice, Parameters...), const SampleSlice& slice,
                void* stream, Arguments... arguments) {
  return launch(name, kernel, dim3(static_cast<unsigned>(slice.count)), kSampleThreads, 0, stream,
                slice, arguments...);
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int blc_sample_prepare(const float* logits, const float* temperature, int64_t rows, int64_t n,
                       float* x, float* max, int32_t* bad, void* stream) {
  return launch(Kernel::SAMPLE_PREPARE, sample_prepare, dim3(static_cast<unsigned>(rows)),
                kSampleThreads, 0, stream, logits, temperature, n, x, max, bad);
}

int blc_sample_perturbed(const SampleSlice* slice, int64_t m, const uint64_t* thresholds,
                         SampleScored* best, SampleMass* mass, void* stream) {
  return launch_rows(Kernel::SAMPLE_PERTURBED, sample_perturbed, *slice, stream, m, thresholds,
                     best, mass);
}

int blc_sample_top(const SampleSlice* slice, const int64_t* k, int64_t width, uint64_t* keys,
                   void* stream) {
  return launch_rows(Kernel::SAMPLE_TOP, sample_top, *slice, stream, k, width, keys);
}

int blc_sample_before(const SampleSlice* slice, const uint32_t* centres, const uint64_t* keys,
                      int64_t width, uint64_t* mass, uint32_t* count, void* stream) {
  return launch_rows(Kernel::SAMPLE_BEFORE, sample_before, *slice, stream, centres, keys, width,
                     mass, count);
}

int blc_sample_histogram(const SampleSlice* slice, const uint32_t* centres, const uint64_t* prefix,
                         int shift, uint64_t* mass, uint32_t* count, void* stream) {
  return launch_rows(Kernel::SAMPLE_HISTOGRAM, sample_histogram, *slice, stream, centres, prefix,
                     shift, mass, count);
}

int blc_sample_nth_tie(const SampleSlice* slice, const uint32_t* order, const int64_t* nth,
                       uint32_t* ids, void* stream) {
  return launch_rows(Kernel::SAMPLE_NTH_TIE, sample_nth_tie, *slice, stream, order, nth, ids);
}

int blc_sample_mask(const SampleSlice* slice, const uint32_t* centres, const uint64_t* last,
                    float* out, void* stream) {
  return launch_rows(Kernel::SAMPLE_MASK, sample_mask, *slice, stream, centres, last, out);
}

int blc_sample_typical_sums(const SampleSlice* slice, SampleGaps* out, void* stream) {
  return launch_rows(Kernel::SAMPLE_TYPICAL_SUMS, sample_typical_sums, *slice, stream, out);
}
