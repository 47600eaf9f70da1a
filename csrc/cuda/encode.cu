// Encoding with a sparse dictionary in one launch: which outputs of a product are kept
// (csrc/spec/dictionary.h), without the product in memory. A thread block multiplies 32 rows by a
// range of features, 64 at a time (tile.h), and appends what may be kept to the entries of its
// rows, by ascending feature. For the k largest it forgets what it knows not to be among them
// whenever there is no room for 64 more; the last block of a row tile selects from all ranges.
#include "../spec/dictionary.h"
#include "../spec/sampling.h"
#include "compact.h"
#include "library.h"
#include "sampling.h"
#include "tile.h"

namespace bitlens::cuda {
namespace {

static_assert(kRowThreads == kSampleThreads && kRowThreads == kTileThreads);

using Rows = Tile<2>;
constexpr int kRowsAWarp = Rows::rows / kRowWarps;
constexpr int kPadScores = kTileColumns + 1;

struct Encode {
  Linear op;      // its output goes nowhere
  int64_t tiles;  // of features, in a range
  int64_t capacity;
  Entry* entries;   // [rows, ranges, capacity]
  int32_t* counts;  // [rows, ranges]
};

// Shared memory of a block.
struct Shared {
  float x[Rows::x_floats], w[Rows::w_floats], scores[Rows::rows * kPadScores];
  unsigned filled[Rows::rows];  // entries of each row
};

__device__ int64_t first_row() { return static_cast<int64_t>(blockIdx.y) * Rows::rows; }

__device__ Entry* entries_of(const Encode& e, int64_t row) {
  return e.entries + (row * gridDim.x + blockIdx.x) * e.capacity;
}

__device__ uint64_t key_of(const Entry& entry) {
  return spec::order_key(entry.value, static_cast<uint32_t>(entry.index));
}

// The outputs of a tile.
template <typename R>
__device__ void score_tile(const Encode& e, int64_t tile, Shared* shared) {
  Rows::Sums total = {};
  Rows::product<R, spec::Order::kChain>(e.op, first_row(), tile, shared->x, shared->w, total);
  Rows::for_outputs(total, [&](int row, int column, float sum) {
    const int64_t feature = tile * kTileColumns + column;
    if (e.op.bias != nullptr && feature < e.op.n) sum = sum + e.op.bias[feature];
    shared->scores[row * kPadScores + column] = sum;
  });
}

// Those of them that are kept, behind the entries of their rows, a warp a few rows. What has no
// room is counted.
template <typename Keep>
__device__ void append(const Encode& e, int64_t tile, Shared* shared, Keep keep) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int row0 = static_cast<int>(threadIdx.x) / kWarpSize * kRowsAWarp;
  for (int row = row0; row < row0 + kRowsAWarp && first_row() + row < e.op.m; ++row) {
    Entry* entries = entries_of(e, first_row() + row);
    unsigned at = shared->filled[row];
    for (int column = lane; column < kTileColumns; column += kWarpSize) {
      const int64_t feature = tile * kTileColumns + column;
      const Entry entry = {shared->scores[row * kPadScores + column],
                           static_cast<int32_t>(feature)};
      const bool kept = feature < e.op.n && keep(row, entry);
      const unsigned votes = __ballot_sync(0xffffffffu, kept);
      const unsigned slot = at + static_cast<unsigned>(__popc(votes & ((1u << lane) - 1)));
      if (kept && slot < e.capacity) entries[slot] = entry;
      at += static_cast<unsigned>(__popc(votes));
    }
    if (lane == 0) shared->filled[row] = at;
  }
}

// Every tile of this block's features; after_tile() comes behind each.
template <typename R, typename Keep, typename After>
__device__ void encode(const Encode& e, Shared* shared, Keep keep, After after_tile) {
  for (int row = static_cast<int>(threadIdx.x); row < Rows::rows; row += kTileThreads)
    shared->filled[row] = 0;
  const int64_t tiles = (e.op.n + kTileColumns - 1) / kTileColumns;
  const int64_t first = blockIdx.x * e.tiles;
  for (int64_t tile = first; tile < first + e.tiles && tile < tiles; ++tile) {
    score_tile<R>(e, tile, shared);
    __syncthreads();
    append(e, tile, shared, keep);
    __syncthreads();
    after_tile();
  }
  __syncthreads();
}

__device__ void publish_counts(const Encode& e, const Shared* shared) {
  __syncthreads();
  for (int row = static_cast<int>(threadIdx.x); row < Rows::rows; row += kTileThreads)
    if (first_row() + row < e.op.m)
      e.counts[(first_row() + row) * gridDim.x + blockIdx.x] =
          static_cast<int32_t>(shared->filled[row]);
}

template <typename R>
__global__ void __launch_bounds__(kTileThreads, 2) encode_above(Encode e, const float* thresholds) {
  BL_SHARED(Shared, shared, 1);
  encode<R>(
      e, shared, [&](int, const Entry& entry) { return entry.value > thresholds[entry.index]; },
      [] {});
  publish_counts(e, shared);
}

// Leaves the k first of a row's entries, of which there are more; returns the last one's key.
__device__ uint64_t shrink(Entry* entries, unsigned count, Counter k, SampleShared* sample,
                           unsigned* counts) {
  const uint64_t last = select(
      sample, count, k, [&](int64_t i) { return key_of(entries[i]); },
      [](int64_t) { return Counter{1}; });
  Entry mine;
  compact(
      count, counts,
      [&](int64_t i) {
        mine = entries[i];
        return key_of(mine) >= last;
      },
      [&](int64_t slot, int64_t) { entries[slot] = mine; });
  return last;
}

// Whether every other block of the row tile is done, whose writes are then seen.
__device__ bool is_last(unsigned* tickets, unsigned* told) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) *told = atomicAdd(tickets + blockIdx.y, 1u) + 1;
  __syncthreads();
  __threadfence();
  return *told == gridDim.x;
}

// The k first entries of a row over all ranges, each of which has at most k; -1 behind them.
__device__ void select_row(const Encode& e, int64_t row, int64_t k, SampleShared* sample,
                           unsigned* counts, float* values, int32_t* indices) {
  const Entry* entries = e.entries + row * gridDim.x * e.capacity;
  const int32_t* there = e.counts + row * gridDim.x;
  const int64_t n = gridDim.x * k;
  const auto number = [&](int64_t i) { return static_cast<Counter>(i % k < there[i / k]); };
  const auto entry = [&](int64_t i) { return entries[i / k * e.capacity + i % k]; };
  const auto key = [&](int64_t i) { return key_of(entry(i)); };
  const Counter found = sum_over(sample, n, number), wanted = static_cast<Counter>(k);
  const uint64_t last = wanted < found ? select(sample, n, wanted, key, number) : 0;
  const int64_t written = compact(
      n, counts, [&](int64_t i) { return number(i) != 0 && key(i) >= last; },
      [&](int64_t slot, int64_t i) {
        values[slot] = entry(i).value;
        indices[slot] = entry(i).index;
      });
  for (int64_t i = written + threadIdx.x; i < k; i += kRowThreads)
    values[i] = 0.0f, indices[i] = -1;
}

template <typename R>
__global__ void __launch_bounds__(kTileThreads, 2)
    encode_top_k(Encode e, int64_t k, unsigned* tickets, float* values, int32_t* indices) {
  BL_SHARED(Shared, shared, 1);
  BL_SHARED(SampleShared, sample, 1);
  BL_SHARED(unsigned, counts, kRowWarps);
  BL_SHARED(uint64_t, bounds, Rows::rows);  // what was forgotten is below
  BL_SHARED(unsigned, told, 1);
  for (int row = static_cast<int>(threadIdx.x); row < Rows::rows; row += kTileThreads)
    bounds[row] = 0;
  const auto shrink_beyond = [&](int64_t most) {
    for (int row = 0; row < Rows::rows; ++row) {
      const unsigned count = shared->filled[row];
      if (count <= most) continue;
      const uint64_t last =
          shrink(entries_of(e, first_row() + row), count, static_cast<Counter>(k), sample, counts);
      if (threadIdx.x == 0) bounds[row] = last, shared->filled[row] = static_cast<unsigned>(k);
    }
  };
  encode<R>(
      e, shared,
      [&](int row, const Entry& entry) {
        return entry.value == entry.value && key_of(entry) > bounds[row];
      },
      [&] { shrink_beyond(e.capacity - kTileColumns); });
  shrink_beyond(k);
  publish_counts(e, shared);
  if (!is_last(tickets, told)) return;
  for (int row = 0; row < Rows::rows && first_row() + row < e.op.m; ++row) {
    const int64_t at = first_row() + row;
    select_row(e, at, k, sample, counts, values + at * k, indices + at * k);
  }
}

Encode encoding(const float* x, int64_t rows, int64_t d, const uint8_t* panels, int format,
                int64_t n, const float* bias, int64_t ranges, int64_t capacity, Entry* entries,
                int32_t* counts) {
  const int64_t bytes = panel_bytes(static_cast<Format>(format), d);
  const int64_t tiles = (n + kTileColumns - 1) / kTileColumns;
  return {{x, kF32, rows, d, d, panels, bytes, n, bias, nullptr, kF32, n},
          (tiles + ranges - 1) / ranges,
          capacity,
          entries,
          counts};
}

dim3 grid_of(int64_t rows, int64_t ranges) {
  return dim3(static_cast<unsigned>(ranges),
              static_cast<unsigned>((rows + Rows::rows - 1) / Rows::rows));
}

}  // namespace
}  // namespace bitlens::cuda

using namespace bitlens::cuda;

int64_t blc_encode_ranges(int64_t rows, int64_t n, int64_t blocks) {
  const int64_t tiles = (n + kTileColumns - 1) / kTileColumns;
  const int64_t wanted = blocks / (rows < Rows::rows ? 1 : (rows + Rows::rows - 1) / Rows::rows);
  return wanted < 1 ? 1 : wanted < tiles ? wanted : tiles;
}

int blc_encode_top_k(const float* x, int64_t rows, int64_t d, const uint8_t* panels, int format,
                     int64_t n, const float* bias, int64_t k, int64_t ranges, int64_t capacity,
                     Entry* entries, int32_t* counts, uint32_t* tickets, float* values,
                     int32_t* indices, void* stream) {
  if (capacity < k + kTileColumns) return kWorkspaceTooSmall;
  const Encode e = encoding(x, rows, d, panels, format, n, bias, ranges, capacity, entries, counts);
  auto* kernel = with_format(format, [](auto reader) { return encode_top_k<decltype(reader)>; });
  return launch(Kernel::ENCODE_TOP_K, kernel, grid_of(rows, ranges), kTileThreads, 0, stream, e, k,
                tickets, values, indices);
}

int blc_encode_above(const float* x, int64_t rows, int64_t d, const uint8_t* panels, int format,
                     int64_t n, const float* bias, const float* thresholds, int64_t ranges,
                     int64_t capacity, Entry* entries, int32_t* counts, void* stream) {
  const Encode e = encoding(x, rows, d, panels, format, n, bias, ranges, capacity, entries, counts);
  auto* kernel = with_format(format, [](auto reader) { return encode_above<decltype(reader)>; });
  return launch(Kernel::ENCODE_ABOVE, kernel, grid_of(rows, ranges), kTileThreads, 0, stream, e,
                thresholds);
}
