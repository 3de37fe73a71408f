// What work requests may name: the columns of RegionTable (lib/engines/verbs/region-table.ts).
#pragma once

#include <cstdint>

#include "queue/check.h"
#include "queue/table.h"
#include "support/columns.h"

namespace p2pdma::verbs::work {

using namespace abi::op;
using queue::MappingState;
using queue::NamesSource;
using queue::NamesTarget;
using queue::RowDefect;

struct Region : queue::Attachment {
  uint32_t key = 0;
  uint32_t queue = 0;
};

struct RegionColumns : queue::TableColumns {
  using Place = Region;

  // lkeys of ours, rkeys of a peer's.
  Column<uint32_t> keys;
  // Number of the queue pair on which a peer's may be used; 0: it is ours.
  Column<uint32_t> queues;

  void Read(uint32_t slot, Region* out) const {
    TableColumns::Read(slot, out);
    out->key = keys.Read(slot);
    out->queue = queues.Read(slot);
  }
};

using RegionReader = queue::TableReader<RegionColumns>;

}  // namespace p2pdma::verbs::work
