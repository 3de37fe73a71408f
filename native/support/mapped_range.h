// A range of the address space with memory of somebody's behind it. Whoever
// may still touch it holds a std::shared_ptr; the last one gone gives the
// addresses back. Until then they are not used for anything else, so a late
// access cannot reach a newer mapping.
#pragma once

#include <errno.h>
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <memory>

namespace p2pdma {

struct MappedRange {
  std::byte* const data;
  const size_t size;
  const bool writable;
  // Bytes mapped before `data`, which nobody looks at.
  const size_t lead;
  // A device's memory: only wide_copy.h touches it.
  const bool device;
  // Whether the memory has gone: only the addresses are kept.
  std::atomic<bool> retired = false;

  MappedRange(void* address, size_t lead_length, size_t length, bool may_write,
              bool is_device = false)
      : data(static_cast<std::byte*>(address) + lead_length),
        size(length),
        writable(may_write),
        lead(lead_length),
        device(is_device) {}
  MappedRange(const MappedRange&) = delete;
  MappedRange& operator=(const MappedRange&) = delete;
  ~MappedRange() { munmap(data - lead, lead + size); }

  // Whether [offset, offset + length) lies inside.
  bool Contains(size_t offset, size_t length) const {
    return offset <= size && length <= size - offset;
  }

  // Lets go of the memory but keeps the addresses: anonymous memory takes its
  // place in one step, so a native request that still holds a pointer (the
  // thread pool's) reads zeros and writes into nowhere. Returns 0 or an errno.
  int Retire() {
    retired = true;
    void* const placed = mmap(data - lead, lead + size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return placed == MAP_FAILED ? errno : 0;
  }
};

// The owner of what mmap(2) has returned; without memory for one, it is unmapped again.
inline std::shared_ptr<MappedRange> OwnRange(void* address, size_t lead, size_t length,
                                             bool writable, bool device = false) {
  try {
    return std::make_shared<MappedRange>(address, lead, length, writable, device);
  } catch (...) {
    munmap(address, lead + length);
    throw;
  }
}

}  // namespace p2pdma
