// Copies to, from and within a device's memory. Such a mapping is uncached or
// write-combined: each access goes over the bus as it is written here, so it
// has to be naturally aligned (arm64 faults otherwise), happen once, and be as
// wide as the CPU can (a load waits for the device's answer each time).
// memmove promises none of that: it overlaps its tails, and may copy bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace p2pdma {

// One way to copy; the fastest that this CPU has comes first in WideCopies().
struct WideCopy {
  const char* name;
  // Bytes of one access.
  size_t width;
  // Aligned blocks of `width` bytes: `from` and `to` are aligned where they are a device's.
  void (*load)(std::byte* to, const std::byte* from, size_t blocks);   // from a device
  void (*store)(std::byte* to, const std::byte* from, size_t blocks);  // to a device
  void (*both)(std::byte* to, const std::byte* from, size_t blocks);   // between devices
};

std::span<const WideCopy> WideCopies();

// As memmove, for ordinary memory (where it is memmove) and a device's alike.
// All stores are visible to the device before what the caller does next.
void CopyBytes(std::byte* to, bool to_device, const std::byte* from, bool from_device,
               size_t length, const WideCopy& way = WideCopies().front());

// Fills with a pattern of 8 bytes; `to` and `length` are multiples of 8.
void FillWords(std::byte* to, bool to_device, uint64_t pattern, size_t length);

// What was stored before is visible to the device before what comes next.
void DeviceFence();

}  // namespace p2pdma
