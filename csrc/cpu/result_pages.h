// Memory on huge pages, and that of large results. The first touch of fresh pages costs about as
// much as the arithmetic that fills them, so pages are huge where the system has them, and those
// given back stay mapped for the next result of their size, marked as free: the system takes them
// when memory runs short.
#pragma once

#include <cstddef>

namespace bitlens {

inline constexpr size_t kHugePage = size_t{2} << 20;
inline constexpr size_t kKeptBytes = size_t{4} << 30;  // of address space, oldest given up first

// At least `bytes` long, aligned to a huge page; throws std::bad_alloc.
void* map_pages(size_t bytes);

// Gives back to the system what map_pages(bytes) returned.
void unmap_pages(void* pages, size_t bytes) noexcept;

// As map_pages, but those of an earlier result where there are any.
void* take_pages(size_t bytes);

// Keeps what take_pages(bytes) returned for the next result.
void return_pages(void* pages, size_t bytes) noexcept;

// How many bytes are mapped and waiting for a result of their size.
size_t kept_page_bytes();

// Unmaps them.
void drop_kept_pages() noexcept;

}  // namespace bitlens
