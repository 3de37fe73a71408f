// What the software engine works on: operations and completions.
#pragma once

#include <cstdint>

#include "../abi.h"
#include "../queue/table.h"

namespace p2pdma::software {

using abi::kSlotBits;
using abi::access::Access;
using abi::op::Op;
using abi::status::Status;
using queue::kSlotMask;

// The longest piece of an operation that runs without looking at the
// mapping and at the channel's controls again.
inline constexpr uint64_t kChunkBytes = 64 * 1024;
// Operations of one channel in a row before the next channel has its turn.
inline constexpr uint32_t kBurst = 32;

// One operation, resolved: it names the generations it was posted against.
// One cache line.
struct alignas(64) Operation {
  uint64_t source_offset;
  uint64_t target_offset;
  uint64_t length;
  uint64_t operand;
  double cookie;
  uint32_t source;
  uint32_t target;
  uint32_t source_generation;
  uint32_t target_generation;
  Op op;
  // Not kOk: `Restart` has decided its end, the device does not touch it.
  Status verdict;
};
static_assert(sizeof(Operation) == 64);

struct Completion {
  double cookie;
  double result;
  Status status;
  uint32_t epoch;
};

}  // namespace p2pdma::software
