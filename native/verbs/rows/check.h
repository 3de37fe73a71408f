// What a row of a batch may be on a queue pair.
#pragma once

#include <cstdint>

#include "abi.h"
#include "regions.h"
#include "support/columns.h"

namespace p2pdma::verbs::work {

using namespace abi::op;
using namespace abi::access;

inline bool NamesSource(uint8_t op) { return op == kCopy || op == kSend; }
inline bool NamesTarget(uint8_t op) { return op != kSend; }

// What is wrong with a row; the order is that of `defects` in lib/engines/verbs/row-error.ts.
enum class Defect : uint32_t {
  kNone,
  kUnsupportedOp,
  kUnknownOp,
  kLength,
  kSourceOffset,
  kSourceAccess,
  kSourceQueue,
  kTargetOffset,
  kTargetAccess,
  kTargetQueue,
  kRemotes,
  kTargetOurs,
  kAtomicLength,
  kAtomicOffset,
  kOperand,
  kSourceTheirs,
  kTargetTheirs,
};

struct Checker {
  const BatchColumns& batch;
  RegionReader& sources;
  RegionReader& targets;
  // Bytes.
  uint64_t max_message;
  // This queue pair's number.
  uint32_t queue;

  // True: it can be accepted. False: it is malformed, as `defect` says, or
  // what it names is not mapped for the moment.
  bool Check(uint32_t row, Defect* defect);

 private:
  bool CheckSide(const Region& region, double wide_offset, uint64_t length, uint8_t access,
                 Defect first, Defect* defect) const;
  bool CheckKind(uint32_t row, uint8_t op, uint64_t length, bool source_remote, bool target_remote,
                 Defect* defect) const;
};

}  // namespace p2pdma::verbs::work
