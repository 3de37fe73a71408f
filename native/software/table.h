// The device's page table: which memory an attachment id stands for now.
//
// The JavaScript thread maps and unmaps, the device thread looks up. The lock
// between them is a hazard word: the device publishes the slots it is about to
// touch, then checks the generation; `Unmap` kills the generation, then waits
// until the device has left the slot. Both sides store before they load, in
// the one total order of seq_cst, so one of them sees the other. It costs the
// device one exchange for each chunk, whatever the number of attachments.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "../support/mapped_range.h"
#include "types.h"

namespace p2pdma::software {

class AttachmentTable {
 public:
  // Written by the JavaScript thread only, and only while `generation` is 0
  // and the device is not in the slot.
  struct Entry {
    std::shared_ptr<MappedRange> range;
    std::byte* base = nullptr;
    uint64_t size = 0;
    std::atomic<uint32_t> generation{0};  // 0: not mapped
    uint32_t id = 0;
    uint8_t access = 0;
    bool sealed = false;  // JavaScript thread only: closed to new work
  };
  static_assert(sizeof(Entry) <= 64);

  // What `Unmap` took away; keeps the range's addresses reserved.
  struct Retired {
    std::shared_ptr<MappedRange> range;
    std::byte* base = nullptr;
    uint64_t size = 0;
  };

  AttachmentTable() = default;
  ~AttachmentTable();
  AttachmentTable(const AttachmentTable&) = delete;
  AttachmentTable& operator=(const AttachmentTable&) = delete;

  // -- JavaScript thread --

  // Returns the new generation, sealed; 0 if the slot is mapped for another id.
  // The caller has checked that offset and size lie within the range.
  uint32_t Map(uint32_t id, std::shared_ptr<MappedRange> range, uint64_t offset, uint64_t size,
               uint32_t access);
  // Closes or opens a mapped id to new work; not mapped: no-op.
  void Seal(uint32_t id, bool sealed);
  // After it has returned the device reaches the range no more. False: was not mapped.
  bool Unmap(uint32_t id, Retired* retired);
  // The entry of a mapped id, else nullptr.
  const Entry* Find(uint32_t id) const {
    const Entry* entry = At(id & kSlotMask);
    if (entry == nullptr || entry->generation.load(std::memory_order_relaxed) == 0) return nullptr;
    return entry->id == id ? entry : nullptr;
  }
  // Memory of the table itself.
  uint64_t bytes() const;
  // Unmaps everything. The device thread has ended.
  void Clear();

  // -- device thread --

  struct Place {
    std::byte* data = nullptr;
    bool device = false;
  };

  // While a Hold lives, an entry that `Resolve` has found stays.
  class Hold {
   public:
    Hold(AttachmentTable& table, uint32_t source, uint32_t target) : table_(table) {
      const uint64_t slots = (uint64_t{source & kSlotMask} + 1) << 32 | ((target & kSlotMask) + 1);
      table_.hazard_.store(slots, std::memory_order_seq_cst);
    }
    ~Hold() { table_.hazard_.store(0, std::memory_order_release); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    // Where [offset, offset + length) is; `data` is nullptr for a fault.
    Place Resolve(uint32_t id, uint32_t generation, uint32_t right, uint64_t offset,
                  uint64_t length) const {
      const Entry* entry = table_.At(id & kSlotMask);
      if (entry == nullptr || generation == 0) return {};
      if (entry->generation.load(std::memory_order_seq_cst) != generation) return {};
      if (entry->id != id || (entry->access & right) == 0) return {};
      if (offset > entry->size || length > entry->size - offset) return {};
      return {entry->base + offset, entry->range->device};
    }

   private:
    AttachmentTable& table_;
  };

  // The generation of today, for an operation that is repeated by mistake (a
  // deliberate fault). A Hold has to check it.
  uint32_t Generation(uint32_t id) const {
    const Entry* entry = At(id & kSlotMask);
    return entry == nullptr ? 0 : entry->generation.load(std::memory_order_seq_cst);
  }

 private:
  // Pages of a fixed size, so that an entry never moves under the device.
  static constexpr uint32_t kPageBits = 10;
  static constexpr uint32_t kPageEntries = 1U << kPageBits;
  static constexpr uint32_t kPages = 1U << (kSlotBits - kPageBits);
  using Page = std::array<Entry, kPageEntries>;

  const Entry* At(uint32_t slot) const {
    const Page* page = pages_[slot >> kPageBits].load(std::memory_order_acquire);
    return page == nullptr ? nullptr : &(*page)[slot & (kPageEntries - 1)];
  }
  Entry& Grow(uint32_t slot);
  void WaitUntilLeft(uint32_t slot) const;

  std::array<std::atomic<Page*>, kPages> pages_{};
  uint32_t next_generation_ = 1;
  alignas(64) std::atomic<uint64_t> hazard_{0};
};

}  // namespace p2pdma::software
