// The attachment table, for engines whose rows become what a device addresses
// by itself: the columns of AttachmentTable (lib/engines/queue/table.ts).
#pragma once

#include <cstdint>

#include "abi.h"
#include "support/columns.h"

namespace p2pdma::queue {

constexpr uint32_t kSlotMask = (1U << abi::kSlotBits) - 1;

using abi::mapping_state::MappingState;

// An attachment, as it stands in the table now.
struct Attachment {
  uint64_t iova = 0;
  uint64_t size = 0;
  uint8_t state = MappingState::kNone;
  uint8_t access = 0;
};

struct TableColumns {
  using Place = Attachment;

  uint32_t capacity = 0;
  Column<uint32_t> ids;
  Column<uint8_t> states;
  Column<uint8_t> access;
  Column<double> iovas;
  Column<double> sizes;

  void Read(uint32_t slot, Attachment* out) const {
    out->state = states.Read(slot);
    out->access = access.Read(slot);
    // The engine's own table; JavaScript could write it.
    if (!Whole(sizes.Read(slot), &out->size)) out->size = 0;
    if (!Whole(iovas.Read(slot), &out->iova)) out->size = 0;
  }
};

// Rows mostly name one attachment again and again: what was found for the last
// one serves the next, until Begin(), since the table changes between calls.
template <typename Columns>
class TableReader {
 public:
  using Place = typename Columns::Place;

  explicit TableReader(const Columns& table) : table_(table) {}

  void Begin() { has_ = false; }

  // Of an id that owns no slot it is empty.
  const Place& Find(uint32_t id) {
    if (has_ && id == id_) return place_;
    has_ = true;
    id_ = id;
    const uint32_t slot = id & kSlotMask;
    place_ = {};
    if (slot < table_.capacity && table_.ids.Read(slot) == id) table_.Read(slot, &place_);
    return place_;
  }

  // What is open to new work, or null.
  const Place* Open(uint32_t id) {
    const Place& place = Find(id);
    return place.state == MappingState::kOpen ? &place : nullptr;
  }

 private:
  const Columns& table_;
  Place place_;
  uint32_t id_ = 0;
  bool has_ = false;
};

}  // namespace p2pdma::queue
