#include "check.h"

namespace p2pdma::verbs::work {

namespace {

bool Fail(Defect* defect, Defect what) {
  *defect = what;
  return false;
}

// The defects of a side follow each other: its offset, its access, its queue.
Defect After(Defect first, uint32_t steps) {
  return static_cast<Defect>(static_cast<uint32_t>(first) + steps);
}

}  // namespace

bool Checker::Check(uint32_t row, Defect* defect) {
  const uint8_t op = batch.op.Read(row);
  if (op == kNop || op == kFill) return Fail(defect, Defect::kUnsupportedOp);
  if (op > kReceive) return Fail(defect, Defect::kUnknownOp);
  uint64_t length;
  if (!Whole(batch.length.Read(row), &length) || length > max_message) {
    return Fail(defect, Defect::kLength);
  }
  static constexpr Region kUnnamed = {.reach = Reach::kOpen};
  const Region& source = NamesSource(op) ? sources.Find(batch.source.Read(row)) : kUnnamed;
  const Region& target = NamesTarget(op) ? targets.Find(batch.target.Read(row)) : kUnnamed;
  if (source.reach < Reach::kOpen || target.reach < Reach::kOpen) return false;
  if (NamesSource(op) && !CheckSide(source, batch.source_offset.Read(row), length, kRead,
                                    Defect::kSourceOffset, defect)) {
    return false;
  }
  if (NamesTarget(op) && !CheckSide(target, batch.target_offset.Read(row), length, kWrite,
                                    Defect::kTargetOffset, defect)) {
    return false;
  }
  return CheckKind(row, op, length, source.queue != 0, target.queue != 0, defect);
}

bool Checker::CheckSide(const Region& region, double wide_offset, uint64_t length, uint8_t access,
                        Defect first, Defect* defect) const {
  uint64_t offset;
  if (!Whole(wide_offset, &offset) || offset > region.size || length > region.size - offset) {
    return Fail(defect, first);
  }
  if ((region.access & access) == 0) return Fail(defect, After(first, 1));
  if (region.queue != 0 && region.queue != queue) return Fail(defect, After(first, 2));
  return true;
}

bool Checker::CheckKind(uint32_t row, uint8_t op, uint64_t length, bool source_remote,
                        bool target_remote, Defect* defect) const {
  if (op == kSend) return !source_remote || Fail(defect, Defect::kSourceTheirs);
  if (op == kReceive) return !target_remote || Fail(defect, Defect::kTargetTheirs);
  if (op == kCopy) return source_remote != target_remote || Fail(defect, Defect::kRemotes);
  uint64_t offset = 0;
  uint64_t operand = 0;
  if (!target_remote) return Fail(defect, Defect::kTargetOurs);
  if (length != 8) return Fail(defect, Defect::kAtomicLength);
  Whole(batch.target_offset.Read(row), &offset);
  if (offset % 8 != 0) return Fail(defect, Defect::kAtomicOffset);
  if (!Whole(batch.operand.Read(row), &operand)) return Fail(defect, Defect::kOperand);
  return true;
}

}  // namespace p2pdma::verbs::work
