#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace bitlens {

// Grows to the largest size asked for and is kept for the next call: no allocation while decoding.
class Scratch {
 public:
  float* floats(int64_t count) { return static_cast<float*>(bytes(count * 4)); }
  uint32_t* words(int64_t count) { return static_cast<uint32_t*>(bytes(count * 4)); }

 private:
  void* bytes(int64_t count) {
    if (count > capacity_) {
      data_.reset(::operator new(static_cast<size_t>(count), std::align_val_t{64}));
      capacity_ = count;
    }
    return data_.get();
  }

  struct Free {
    void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<void, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace bitlens
