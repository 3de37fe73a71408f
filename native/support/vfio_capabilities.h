// The capabilities behind an information structure of VFIO's: a chain of offsets
// (include/uapi/linux/vfio.h, struct vfio_info_cap_header). Nothing that the
// kernel says is believed to lie inside the memory that it was given.
#pragma once

#include <linux/vfio.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace p2pdma {

using Bytes = std::span<const std::byte>;

// An information structure with its capabilities has no more, in bytes.
constexpr size_t kMostInfo = 1 << 20;

// False where it would reach beyond the end.
template <typename T>
bool ReadAt(Bytes memory, size_t at, T* out) {
  if (at > memory.size() || memory.size() - at < sizeof(T)) return false;
  memcpy(out, memory.data() + at, sizeof(T));
  return true;
}

// Calls visit(id, bytes) for each: the bytes from its header to the end. An offset
// leads on, never back, so that there is an end.
template <typename Visit>
void ForEachCapability(Bytes memory, size_t first, Visit visit) {
  vfio_info_cap_header header;
  for (size_t at = first; at != 0 && ReadAt(memory, at, &header);) {
    visit(uint16_t{header.id}, memory.subspan(at));
    if (header.next <= at) return;
    at = header.next;
  }
}

}  // namespace p2pdma
