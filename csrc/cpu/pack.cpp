// From rows as checkpoints store them to the panels of isa/weight_panels.h.
#include <cstring>
#include <stdexcept>
#include <string>

#include "bf16_pairs.h"
#include "linear.h"
#include "threads.h"

namespace bitlens {
namespace {

constexpr int64_t kColumns = kPanelColumns;

// Bytes of one GGUF block of 32 weights, and of its header (scale, and minimum if there is one).
struct BlockLayout {
  int64_t bytes, header;
};

BlockLayout block_layout(Format format) {
  switch (format) {
    case Format::Q8_0:
      return {34, 2};
    case Format::Q4_0:
      return {18, 2};
    case Format::Q4_1:
      return {20, 4};
    default:
      throw std::invalid_argument("not a block format");
  }
}

int64_t whole_pairs(int64_t k) { return (k + kPairWholeK - 1) / kPairWholeK * kPairWholeK; }

int64_t panel_size(Format format, int64_t k) {
  switch (format) {
    case Format::F32:
      return k * kColumns * 4;
    case Format::BF16:
      return kPairHeaderBytes + whole_pairs(k) / 2 * kColumns * 4;
    case Format::F16:
      return k * kColumns * 2;
    default:
      break;
  }
  const BlockLayout layout = block_layout(format);
  if (k % kQuantBlock != 0)
    throw std::invalid_argument("a quantised matrix needs k to be a multiple of 32, got k = " +
                                std::to_string(k));
  return k / kQuantBlock * kColumns * layout.bytes;
}

template <typename T>
void pack_dense(const T* rows, int64_t columns, int64_t k, T* panel) {
  for (int64_t column = 0; column < columns; ++column)
    for (int64_t kk = 0; kk < k; ++kk) panel[kk * kColumns + column] = rows[column * k + kk];
}

void pack_pairs(const uint16_t* rows, int64_t columns, int64_t k, uint8_t* panel) {
  const int32_t exponent = least_exponent(rows, columns * k);
  std::memcpy(panel, &exponent, sizeof(exponent));
  uint32_t* pairs = reinterpret_cast<uint32_t*>(panel + kPairHeaderBytes);
  for (int64_t column = 0; column < columns; ++column) {
    const uint16_t* row = rows + column * k;
    for (int64_t kk = 0; kk < whole_pairs(k); kk += 2) {
      const uint32_t even = kk < k ? row[kk] : kPairPadding;
      const uint32_t odd = kk + 1 < k ? row[kk + 1] : kPairPadding;
      pairs[kk / 2 * kColumns + column] = even << 16 | odd;
    }
  }
}

// The code of weight i in a GGUF 4-bit block: low nibbles hold weights 0..15, high nibbles 16..31.
uint32_t code4(const uint8_t* codes, int64_t i) {
  return i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
}

void pack_block(Format format, const uint8_t* block, int64_t column, uint8_t* out) {
  const BlockLayout layout = block_layout(format);
  const int64_t headers = layout.header / 2;
  for (int64_t h = 0; h < headers; ++h)
    std::memcpy(out + (h * kColumns + column) * 2, block + 2 * h, 2);
  const uint8_t* codes = block + layout.header;
  uint8_t* body = out + layout.header * kColumns;
  if (format == Format::Q8_0) {
    for (int64_t i = 0; i < kQuantBlock; ++i) body[i * kColumns + column] = codes[i];
    return;
  }
  for (int64_t group = 0; group < 4; ++group) {
    uint32_t word = 0;
    for (int64_t j = 0; j < 8; ++j) word |= code4(codes, group * 8 + j) << (4 * j);
    std::memcpy(body + (group * kColumns + column) * 4, &word, 4);
  }
}

void pack_panel(Format format, const uint8_t* rows, int64_t columns, int64_t k, uint8_t* panel) {
  std::memset(panel, 0, static_cast<size_t>(panel_size(format, k)));
  if (format == Format::F32) {
    pack_dense(reinterpret_cast<const uint32_t*>(rows), columns, k,
               reinterpret_cast<uint32_t*>(panel));
  } else if (format == Format::BF16) {
    pack_pairs(reinterpret_cast<const uint16_t*>(rows), columns, k, panel);
  } else if (format == Format::F16) {
    pack_dense(reinterpret_cast<const uint16_t*>(rows), columns, k,
               reinterpret_cast<uint16_t*>(panel));
  } else {
    const int64_t bytes = block_layout(format).bytes, blocks = k / kQuantBlock;
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t column = 0; column < columns; ++column)
        pack_block(format, rows + (column * blocks + b) * bytes, column,
                   panel + b * kColumns * bytes);
  }
}

}  // namespace

int64_t row_bytes(Format format, int64_t k) {
  return format == Format::BF16 ? 2 * k : panel_size(format, k) / kColumns;
}

int64_t packed_bytes(Format format, int64_t n, int64_t k) {
  return (n + kColumns - 1) / kColumns * panel_size(format, k);
}

void pack(Format format, const uint8_t* rows, int64_t n, int64_t k, uint8_t* panels) {
  const int64_t bytes = panel_size(format, k);
  parallel_for((n + kColumns - 1) / kColumns, [&](int64_t panel) {
    const int64_t column = panel * kColumns;
    const int64_t columns = n - column < kColumns ? n - column : kColumns;
    pack_panel(format, rows + column * row_bytes(format, k), columns, k, panels + panel * bytes);
  });
}

}  // namespace bitlens
