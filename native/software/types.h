// What the software engine works on: operations, completions, and the numbers
// that stand for them in the columns of lib/move-notify/importer/batch.ts.
#pragma once

#include <cstdint>

namespace p2pdma::software {

enum class Op : uint8_t { kNop = 0, kCopy = 1, kFill = 2, kFetchAdd = 3 };

enum class Status : uint32_t {
  kOk = 0,
  kFault = 1,
  kNotMapped = 2,
  kOutcomeUnknown = 3,
};

// Rights of a mapping (bit mask), as `Access` in lib/move-notify/importer/engine.ts.
inline constexpr uint32_t kAccessRead = 1;
inline constexpr uint32_t kAccessWrite = 2;

// An attachment id is `tag << kSlotBits | slot`.
inline constexpr uint32_t kSlotBits = 20;
inline constexpr uint32_t kSlotMask = (1U << kSlotBits) - 1;

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
