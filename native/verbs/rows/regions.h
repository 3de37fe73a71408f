// What rows may name, by slot of an attachment id: the columns of RegionTable.
#pragma once

#include <cstdint>

#include "abi.h"
#include "queue/check.h"
#include "support/columns.h"

namespace p2pdma::verbs::work {

constexpr uint32_t kSlotMask = (1 << abi::kSlotBits) - 1;
using abi::reach::Reach;
using namespace abi::op;
using queue::NamesSource;
using queue::NamesTarget;
using queue::RowDefect;

struct RegionColumns {
  uint32_t capacity = 0;
  Column<double> iovas;
  Column<double> sizes;
  Column<uint32_t> ids;
  // lkeys of ours, rkeys of a peer's.
  Column<uint32_t> keys;
  // Number of the queue pair on which a peer's may be used; 0: it is ours.
  Column<uint32_t> queues;
  Column<uint8_t> reach;
  Column<uint8_t> access;
};

struct Region {
  uint64_t iova = 0;
  uint64_t size = 0;
  uint32_t key = 0;
  uint32_t queue = 0;
  uint8_t reach = Reach::kNone;
  uint8_t access = 0;
};

// Rows mostly name one attachment again and again: what was found for the last
// one serves the next, until Begin(), since the table changes between calls.
class RegionReader {
 public:
  using Place = Region;

  explicit RegionReader(const RegionColumns& table) : table_(table) {}

  const Region* Open(uint32_t id) {
    const Region& region = Find(id);
    return region.reach == Reach::kOpen ? &region : nullptr;
  }

  void Begin() { has_ = false; }

  const Region& Find(uint32_t id) {
    if (has_ && id == id_) return region_;
    has_ = true;
    id_ = id;
    const uint32_t place = id & kSlotMask;
    region_ = {};
    if (place >= table_.capacity || table_.ids.Read(place) != id) return region_;
    region_.reach = table_.reach.Read(place);
    region_.access = table_.access.Read(place);
    region_.queue = table_.queues.Read(place);
    region_.key = table_.keys.Read(place);
    Whole(table_.iovas.Read(place), &region_.iova);
    Whole(table_.sizes.Read(place), &region_.size);
    return region_;
  }

 private:
  const RegionColumns& table_;
  Region region_;
  uint32_t id_ = 0;
  bool has_ = false;
};

}  // namespace p2pdma::verbs::work
