// What a row of a batch may be, for every engine: read once, resolved against
// the attachments of this moment, and checked. An engine gives its table, and
// adds what only it asks.
#pragma once

#include <cstdint>

#include "abi.h"
#include "support/columns.h"

namespace p2pdma::queue {

using abi::access::Access;
using abi::op::Op;
using abi::row_defect::RowDefect;

inline bool NamesSource(uint32_t op) { return op == Op::kCopy || op == Op::kSend; }
inline bool NamesTarget(uint32_t op) { return op != Op::kNop && op != Op::kSend; }

struct Rules {
  // One bit for each operation that is done here.
  uint32_t ops = 0;
  uint64_t min_length = 0;
  uint64_t max_length = 0;
};

constexpr uint32_t Bit(Op op) { return 1U << op; }

// What an operation does not have is 0, or null.
template <typename Place>
struct Row {
  const Place* source = nullptr;
  const Place* target = nullptr;
  uint64_t source_offset = 0;
  uint64_t target_offset = 0;
  uint64_t length = 0;
  uint64_t operand = 0;
  uint32_t source_id = 0;
  uint32_t target_id = 0;
  Op op = Op::kNop;

  // Of one attachment, its source and its target.
  bool Overlaps() const {
    return op == Op::kCopy && source_id == target_id && length != 0 &&
           source_offset < target_offset + length && target_offset < source_offset + length;
  }
};

// `Table` has Open(id): the Place of an attachment that is open to new work, or
// null. A Place has `size` and `access`, and stays until the next Open().
template <typename Table>
class Checker {
 public:
  using Place = typename Table::Place;

  Checker(const BatchColumns& batch, Table& sources, Table& targets, Rules rules)
      : batch_(batch), sources_(sources), targets_(targets), rules_(rules) {}

  Row<Place> row;
  // Of the row that was refused; none: what it names is not mapped for the moment.
  RowDefect defect = RowDefect::kNone;

  // True: `row` has it, and it can be accepted.
  bool Read(uint32_t at) {
    const uint8_t op = batch_.op.Read(at);
    if (op > Op::kReceive) return Fail(RowDefect::kUnknownOp);
    row.op = static_cast<Op>(op);
    if ((rules_.ops & Bit(row.op)) == 0) return Fail(RowDefect::kUnsupportedOp);
    if (op == Op::kNop) {
      row = {};
      return true;
    }
    return ReadNumbers(at) && Find(at) && CheckSides() && CheckKind();
  }

  bool Fail(RowDefect what) {
    defect = what;
    return false;
  }

 private:
  bool ReadNumbers(uint32_t at) {
    if (!Whole(batch_.length.Read(at), &row.length) || row.length < rules_.min_length ||
        row.length > rules_.max_length) {
      return Fail(RowDefect::kLength);
    }
    if (!NamesSource(row.op)) {
      row.source_offset = 0;
    } else if (!Whole(batch_.source_offset.Read(at), &row.source_offset)) {
      return Fail(RowDefect::kSourceOffset);
    }
    if (!NamesTarget(row.op)) {
      row.target_offset = 0;
    } else if (!Whole(batch_.target_offset.Read(at), &row.target_offset)) {
      return Fail(RowDefect::kTargetOffset);
    }
    if (row.op != Op::kFill && row.op != Op::kFetchAdd) {
      row.operand = 0;
    } else if (!Whole(batch_.operand.Read(at), &row.operand)) {
      return Fail(RowDefect::kOperand);
    }
    return true;
  }

  bool Find(uint32_t at) {
    row.source = nullptr;
    row.target = nullptr;
    row.source_id = 0;
    row.target_id = 0;
    if (NamesSource(row.op)) {
      row.source_id = batch_.source.Read(at);
      row.source = sources_.Open(row.source_id);
      if (row.source == nullptr) return false;
    }
    if (NamesTarget(row.op)) {
      row.target_id = batch_.target.Read(at);
      row.target = targets_.Open(row.target_id);
      if (row.target == nullptr) return false;
    }
    return true;
  }

  bool CheckSides() {
    if (row.target != nullptr) {
      if ((row.target->access & Access::kWrite) == 0) return Fail(RowDefect::kTargetAccess);
      if (!Holds(*row.target, row.target_offset)) return Fail(RowDefect::kTargetBounds);
    }
    if (row.source != nullptr) {
      if ((row.source->access & Access::kRead) == 0) return Fail(RowDefect::kSourceAccess);
      if (!Holds(*row.source, row.source_offset)) return Fail(RowDefect::kSourceBounds);
    }
    return true;
  }

  bool Holds(const Place& place, uint64_t offset) const {
    return offset <= place.size && row.length <= place.size - offset;
  }

  bool CheckKind() {
    if (row.op == Op::kFetchAdd) {
      if (row.length != 8) return Fail(RowDefect::kAtomicLength);
      if ((row.target_offset & 7) != 0) return Fail(RowDefect::kAtomicOffset);
    } else if (row.op == Op::kFill) {
      if (row.operand > 255) return Fail(RowDefect::kFillOperand);
    }
    return true;
  }

  const BatchColumns& batch_;
  Table& sources_;
  Table& targets_;
  const Rules rules_;
};

}  // namespace p2pdma::queue
