// Which attachments the rows of a queue name, without a look at the rows: of each attachment the
// last row that names it. What that says is in lib/engines/uses.ts, whose memory this is.
#pragma once

#include <cstdint>

#include "abi.h"
#include "support/columns.h"

namespace p2pdma {

// Ids that rows name which were not in use before; JavaScript takes them out after each call.
struct Untold {
  Column<uint32_t> column;  // how many, and these
  uint32_t room = 0;

  void Add(uint32_t id) const {
    const uint32_t count = column.Read(0);
    if (count >= room) return;
    column.Write(1 + count, id);
    column.Write(0, 1 + count);
  }
};

struct Uses {
  uint32_t capacity = 0;  // slots of attachment ids
  Column<uint32_t> last;  // two words each: whose they are, and 1 + the row
  Untold untold;

  // Whether there is room for its slot.
  bool Covers(uint32_t id) const { return Slot(id) < capacity; }
  // A row that has been checked (queue/check.h) is about to be accepted. False where there is
  // no room for what it names: then it cannot be.
  template <typename Checked>
  bool Note(const Checked& checked, uint32_t row) const {
    if (!Covers(checked.source_id) || !Covers(checked.target_id)) return false;
    if (checked.source != nullptr) Note(checked.source_id, row);
    if (checked.target != nullptr) Note(checked.target_id, row);
    return true;
  }
  // `row` is about to be accepted, and names this id, which is covered.
  void Note(uint32_t id, uint32_t row) const {
    const uint32_t slot = Slot(id);
    if (last.Read(2 * slot) != id || last.Read(2 * slot + 1) == 0) {
      untold.Add(id);
      last.Write(2 * slot, id);
    }
    last.Write(2 * slot + 1, row + 1);
  }
  // The last row that names it; its place may be another's by now. -1: none.
  int64_t LastRow(uint32_t id) const {
    const uint32_t slot = Slot(id);
    if (!Covers(id) || last.Read(2 * slot) != id) return -1;
    return int64_t{last.Read(2 * slot + 1)} - 1;
  }

 private:
  static uint32_t Slot(uint32_t id) { return id & ((1U << abi::kSlotBits) - 1); }
};

}  // namespace p2pdma
