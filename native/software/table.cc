#include "table.h"

#include <utility>

#include "wait.h"

namespace p2pdma::software {

AttachmentTable::~AttachmentTable() {
  for (auto& page : pages_) delete page.load(std::memory_order_relaxed);
}

AttachmentTable::Entry& AttachmentTable::Grow(uint32_t slot) {
  auto& page = pages_[slot >> kPageBits];
  if (page.load(std::memory_order_relaxed) == nullptr) {
    page.store(new Page(), std::memory_order_release);
  }
  return (*page.load(std::memory_order_relaxed))[slot & (kPageEntries - 1)];
}

uint32_t AttachmentTable::Map(uint32_t id, std::shared_ptr<MappedRange> range, uint64_t offset,
                              uint64_t size, uint32_t access) {
  Entry& entry = Grow(id & kSlotMask);
  if (entry.generation.load(std::memory_order_relaxed) != 0) {
    if (entry.id != id) return 0;
    Retired retired;
    Unmap(id, &retired);
  } else {
    // The device may still be looking at the dead entry.
    WaitUntilLeft(id & kSlotMask);
  }
  entry.base = range->data + offset;
  entry.range = std::move(range);
  entry.size = size;
  entry.id = id;
  entry.access = static_cast<uint8_t>(access);
  entry.sealed = true;
  const uint32_t generation = next_generation_;
  if (++next_generation_ == 0) next_generation_ = 1;
  entry.generation.store(generation, std::memory_order_seq_cst);
  return generation;
}

void AttachmentTable::Seal(uint32_t id, bool sealed) {
  auto* entry = const_cast<Entry*>(Find(id));
  if (entry != nullptr) entry->sealed = sealed;
}

bool AttachmentTable::Unmap(uint32_t id, Retired* retired) {
  auto* entry = const_cast<Entry*>(Find(id));
  if (entry == nullptr) return false;
  entry->generation.store(0, std::memory_order_seq_cst);
  WaitUntilLeft(id & kSlotMask);
  retired->range = std::move(entry->range);
  retired->base = std::exchange(entry->base, nullptr);
  retired->size = std::exchange(entry->size, 0);
  return true;
}

void AttachmentTable::WaitUntilLeft(uint32_t slot) const {
  Backoff backoff;
  for (;;) {
    const uint64_t hazard = hazard_.load(std::memory_order_seq_cst);
    if (static_cast<uint32_t>(hazard >> 32) != slot + 1 &&
        static_cast<uint32_t>(hazard) != slot + 1) {
      return;
    }
    backoff.Pause();
  }
}

uint64_t AttachmentTable::bytes() const {
  uint64_t total = sizeof(*this);
  for (const auto& page : pages_) {
    if (page.load(std::memory_order_relaxed) != nullptr) total += sizeof(Page);
  }
  return total;
}

void AttachmentTable::Clear() {
  for (auto& page : pages_) {
    delete page.exchange(nullptr, std::memory_order_acq_rel);
  }
}

}  // namespace p2pdma::software
