// Operations that a channel has accepted and not yet given back, oldest first:
// the columns and cursors of its Rows (lib/engines/verbs/rows.ts), written here alone. What
// becomes of them in errors is decided there, and asked for row by row (js.cc, finish, takeBack).
#pragma once

#include <cstdint>

#include "abi.h"
#include "support/columns.h"
#include "support/uses.h"

namespace p2pdma::verbs::work {

using namespace abi::stage;
using abi::row_cursor::RowCursor;

// By slot.
struct RowColumns {
  Column<double> source_offset;
  Column<double> target_offset;
  Column<double> length;
  Column<double> operand;
  Column<double> cookie;
  Column<double> result;
  // Of a message that was handed over: its number in this life of the queue pair.
  Column<double> message;
  Column<uint32_t> source;
  Column<uint32_t> target;
  Column<uint8_t> op;
  Column<uint8_t> stage;
  Column<uint8_t> status;
};

// A whole number in shared memory.
class Counter {
 public:
  Counter() = default;
  Counter(Column<double> column, uint32_t at) : column_(column), at_(at) {}
  uint64_t get() const {
    uint64_t value;
    return Whole(column_.Read(at_), &value) ? value : 0;
  }
  void set(uint64_t value) const { column_.Write(at_, static_cast<double>(value)); }
  void add(uint64_t value) const { set(get() + value); }
  void drop() const {
    const uint64_t value = get();
    if (value != 0) set(value - 1);
  }

 private:
  Column<double> column_;
  uint32_t at_ = 0;
};

// Positions count from 0 and are never used again; a row's slot is its position modulo the ring.
class Rows {
 public:
  // Its cursors stand in `cursors` from `at` on.
  Rows(uint32_t depth, const RowColumns& columns, Column<double> cursors, uint32_t at)
      : columns(columns),
        head(cursors, at + RowCursor::kHead),
        next(cursors, at + RowCursor::kNext),
        tail(cursors, at + RowCursor::kTail),
        handed(cursors, at + RowCursor::kHanded),
        done(cursors, at + RowCursor::kDone),
        mask_(depth - 1) {}

  const RowColumns columns;
  // The oldest; the next one to hand over; the next one to accept.
  const Counter head;
  const Counter next;
  const Counter tail;
  // How many the queue pair has.
  const Counter handed;
  // Before it, all are done.
  const Counter done;

  uint32_t depth() const { return mask_ + 1; }
  uint32_t Slot(uint64_t position) const { return static_cast<uint32_t>(position) & mask_; }
  uint32_t size() const {
    const uint64_t size = tail.get() - head.get();
    return size > mask_ ? depth() : static_cast<uint32_t>(size);
  }
  // Behind the newest. JavaScript could write the cursors: no more than a ring from the oldest.
  uint64_t End() const { return head.get() + size(); }
  bool Has(uint64_t position) const { return position - head.get() < size(); }
  uint8_t stage(uint64_t position) const { return columns.stage.Read(Slot(position)); }

  void MarkHanded(uint64_t position) const {
    columns.stage.Write(Slot(position), kHanded);
    handed.add(1);
  }
  void Finish(uint64_t position, uint8_t status, double result) const {
    const uint32_t slot = Slot(position);
    if (columns.stage.Read(slot) == kHanded) handed.drop();
    columns.stage.Write(slot, kDone);
    columns.status.Write(slot, status);
    columns.result.Write(slot, result);
  }
  // The queue pair has it no more, and has not done it.
  void TakeBack(uint64_t position) const {
    const uint32_t slot = Slot(position);
    if (columns.stage.Read(slot) != kHanded) return;
    columns.stage.Write(slot, kHeld);
    handed.drop();
    if (position < next.get()) next.set(position);
  }

 private:
  const uint32_t mask_;
};

}  // namespace p2pdma::verbs::work
