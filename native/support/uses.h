// Which attachments the rows of a queue name, without a look at the rows: of each attachment the
// last row that names it. What that says is in lib/engines/queue/uses.ts, whose memory this is.
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

  // The last row that names it; its place may be another's by now. -1: none.
  int64_t LastRow(uint32_t id) const {
    const uint32_t slot = Slot(id);
    if (slot >= capacity || last.Read(2 * slot) != id) return -1;
    return int64_t{last.Read(2 * slot + 1)} - 1;
  }

 private:
  friend class Noting;

  static uint32_t Slot(uint32_t id) { return id & ((1U << abi::kSlotBits) - 1); }
};

// Notes what the rows of a batch name, as they are accepted. Mostly they name the same again and
// again: what was found for the last one serves the next.
class Noting {
 public:
  explicit Noting(const Uses& uses) : uses_(uses) {}
  Noting(const Noting&) = delete;
  Noting& operator=(const Noting&) = delete;

  // A row that has been checked (queue/check.h) is about to be accepted. False where there is no
  // room for what it names: then it cannot be.
  template <typename Checked>
  bool Note(const Checked& checked, uint32_t row) {
    const bool as_before =
        checked.op == op_ && checked.source_id == source_id_ && checked.target_id == target_id_;
    if (!as_before) [[unlikely]] {
      if (!Find(checked.op, checked.source_id, checked.source != nullptr, checked.target_id,
                checked.target != nullptr)) {
        return false;
      }
    }
    source_.Write(0, row + 1);
    target_.Write(0, row + 1);
    return true;
  }

 private:
  [[gnu::noinline]] bool Find(uint32_t op, uint32_t source_id, bool has_source, uint32_t target_id,
                              bool has_target) {
    if (has_source && Uses::Slot(source_id) >= uses_.capacity) return false;
    if (has_target && Uses::Slot(target_id) >= uses_.capacity) return false;
    op_ = op;
    source_id_ = source_id;
    target_id_ = target_id;
    source_ = has_source ? Place(source_id) : Column<uint32_t>(&unnamed_);
    target_ = has_target ? Place(target_id) : Column<uint32_t>(&unnamed_);
    return true;
  }

  // Where its last row is written.
  Column<uint32_t> Place(uint32_t id) const {
    const uint32_t at = 2 * Uses::Slot(id);
    if (uses_.last.Read(at) != id || uses_.last.Read(at + 1) == 0) {
      uses_.untold.Add(id);
      uses_.last.Write(at, id);
    }
    return uses_.last.From(at + 1);
  }

  const Uses& uses_;
  uint32_t op_ = UINT32_MAX;
  uint32_t source_id_ = 0;
  uint32_t target_id_ = 0;
  Column<uint32_t> source_;
  Column<uint32_t> target_;
  // Takes what a row without a source, or a target, would write.
  uint32_t unnamed_ = 0;
};

}  // namespace p2pdma
