// Made of lib/abi.ts by scripts/abi.mjs: change it there.
#pragma once

#include <cstdint>

namespace p2pdma::abi {

namespace op {
enum Op : uint32_t {
  kNop = 0,
  kCopy = 1,
  kFill = 2,
  kFetchAdd = 3,
  kSend = 4,
  kReceive = 5,
};
}  // namespace op

namespace status {
enum Status : uint32_t {
  kOk = 0,
  kFault = 1,
  kNotMapped = 2,
  kOutcomeUnknown = 3,
  kCancelled = 4,
  kDeviceError = 5,
};
}  // namespace status

namespace access {
enum Access : uint32_t {
  kRead = 1,
  kWrite = 2,
};
}  // namespace access

constexpr uint32_t kStorageAccess = 4;

namespace row_defect {
enum RowDefect : uint32_t {
  kNone = 0,
  kUnknownOp = 1,
  kUnsupportedOp = 2,
  kLength = 3,
  kSourceOffset = 4,
  kTargetOffset = 5,
  kOperand = 6,
  kSourceAccess = 7,
  kSourceBounds = 8,
  kTargetAccess = 9,
  kTargetBounds = 10,
  kAtomicLength = 11,
  kAtomicOffset = 12,
  kFillOperand = 13,
  kOverlap = 14,
  kSourceQueue = 15,
  kTargetQueue = 16,
  kRemotes = 17,
  kTargetOurs = 18,
  kSourceTheirs = 19,
  kTargetTheirs = 20,
  kSourceAlignment = 21,
  kTargetAlignment = 22,
  kLengthAlignment = 23,
  kStorage = 24,
};
}  // namespace row_defect

constexpr uint32_t kSlotBits = 20;

constexpr uint32_t kSoftwareMaxDepth = 65536;

namespace software_bell {
enum SoftwareBell : uint32_t {
  kFirst = 0,
  kCount = 1,
  kAccepted = 2,
  kDefect = 3,
  kInFlight = 4,
  kReaped = 5,
  kStale = 6,
  kLength = 7,
};
}  // namespace software_bell

namespace software_event {
enum SoftwareEvent : uint32_t {
  kCompletion = 1,
  kQuiet = 2,
};
}  // namespace software_event

namespace fault {
enum Fault : uint32_t {
  kLost = 0,
  kDoubled = 1,
  kTorn = 2,
  kStray = 3,
  kStall = 4,
  kDoubledCompletion = 5,
};
}  // namespace fault

namespace ring_bell {
enum RingBell : uint32_t {
  kHead = 0,
  kPending = 1,
  kEpoch = 2,
  kFirst = 3,
  kCount = 4,
  kTell = 5,
  kAccepted = 6,
  kDefect = 7,
  kTaken = 8,
  kBad = 9,
  kDone = 10,
  kGaps = 11,
  kUnmatched = 12,
  kLength = 13,
};
}  // namespace ring_bell

namespace mapping_state {
enum MappingState : uint32_t {
  kNone = 0,
  kChanging = 1,
  kSealed = 2,
  kOpen = 3,
};
}  // namespace mapping_state

namespace work_bell {
enum WorkBell : uint32_t {
  kFirst = 0,
  kCount = 1,
  kEpoch = 2,
  kAccepted = 3,
  kDefect = 4,
  kCredited = 5,
  kGone = 6,
  kError = 7,
  kPolled = 8,
  kIsBad = 9,
  kBadKind = 10,
  kBadPosition = 11,
  kBadStatus = 12,
  kTaken = 13,
  kSends = 14,
  kReceives = 19,
  kArrivalsOnly = 24,
  kMicroseconds = 25,
  kEventOf = 26,
  kLength = 27,
};
}  // namespace work_bell

namespace row_cursor {
enum RowCursor : uint32_t {
  kHead = 0,
  kNext = 1,
  kTail = 2,
  kHanded = 3,
  kDone = 4,
};
}  // namespace row_cursor

namespace stage {
enum Stage : uint32_t {
  kHeld = 0,
  kHanded = 1,
  kDone = 2,
  kReaped = 3,
};
}  // namespace stage

namespace work_kind {
enum WorkKind : uint32_t {
  kSend = 0,
  kReceive = 1,
  kVoid = 2,
};
}  // namespace work_kind

namespace work_count {
enum WorkCount : uint32_t {
  kIsReady = 0,
  kIsPausedByPeer = 1,
  kLife = 2,
  kSent = 3,
  kCredit = 4,
  kPosted = 5,
  kReceived = 6,
  kVoids = 7,
  kNumber = 8,
  kUnmatched = 9,
  kLength = 10,
};
}  // namespace work_count

namespace verdict {
enum Verdict : uint32_t {
  kIntact = 0,
  kUntouched = 1,
  kForeign = 2,
  kMixed = 3,
  kContent = 3,
  kGuardBefore = 4,
  kGuardAfter = 8,
};
}  // namespace verdict

}  // namespace p2pdma::abi
