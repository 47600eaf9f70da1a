#include "result_pages.h"

#include <cstdint>
#include <deque>
#include <iterator>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bitlens {
namespace {

struct Kept {
  void* pages;
  size_t bytes;
};

// Never destroyed: results may outlive static destructors.
struct Shelf {
  std::mutex mutex;
  std::deque<Kept> kept;  // oldest first
  size_t bytes = 0;
};

Shelf& shelf() {
  static Shelf& it = *new Shelf;
  return it;
}

size_t whole_pages(size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

// Without MADV_FREE nothing is kept: the pages could not be taken back.
bool mark_free([[maybe_unused]] void* pages, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  return madvise(pages, bytes, MADV_FREE) == 0;
#else
  return false;
#endif
}

}  // namespace

#if defined(__linux__)

// mmap aligns to small pages: map one huge page more and cut off both ends.
void* map_pages(size_t bytes) {
  bytes = whole_pages(bytes);
  void* raw =
      mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  uint8_t* const begin = static_cast<uint8_t*>(raw);
  const size_t before = -reinterpret_cast<uintptr_t>(begin) % kHugePage;
  if (before) munmap(begin, before);
  munmap(begin + before + bytes, kHugePage - before);
  madvise(begin + before, bytes, MADV_HUGEPAGE);  // advice: a kernel that cannot is no error
  return begin + before;
}

void unmap_pages(void* pages, size_t bytes) noexcept { munmap(pages, whole_pages(bytes)); }

#else

void* map_pages(size_t bytes) {
  return ::operator new(whole_pages(bytes), std::align_val_t{kHugePage});
}
void unmap_pages(void* pages, size_t) noexcept {
  ::operator delete(pages, std::align_val_t{kHugePage});
}

#endif

void* take_pages(size_t bytes) {
  bytes = whole_pages(bytes);
  Shelf& s = shelf();
  {
    const std::lock_guard lock(s.mutex);
    for (auto it = s.kept.rbegin(); it != s.kept.rend(); ++it)
      if (it->bytes == bytes) {
        void* pages = it->pages;
        s.kept.erase(std::next(it).base());
        s.bytes -= bytes;
        return pages;
      }
  }
  return map_pages(bytes);
}

void return_pages(void* pages, size_t bytes) noexcept {
  bytes = whole_pages(bytes);
  if (bytes > kKeptBytes || !mark_free(pages, bytes)) return unmap_pages(pages, bytes);
  Shelf& s = shelf();
  const std::lock_guard lock(s.mutex);
  try {
    s.kept.push_back({pages, bytes});
  } catch (const std::bad_alloc&) {
    return unmap_pages(pages, bytes);
  }
  s.bytes += bytes;
  while (s.bytes > kKeptBytes) {
    unmap_pages(s.kept.front().pages, s.kept.front().bytes);
    s.bytes -= s.kept.front().bytes;
    s.kept.pop_front();
  }
}

size_t kept_page_bytes() {
  const std::lock_guard lock(shelf().mutex);
  return shelf().bytes;
}

void drop_kept_pages() noexcept {
  Shelf& s = shelf();
  const std::lock_guard lock(s.mutex);
  for (const Kept& kept : s.kept) unmap_pages(kept.pages, kept.bytes);
  s.kept.clear();
  s.bytes = 0;
}

}  // namespace bitlens
