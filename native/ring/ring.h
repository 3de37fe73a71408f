// A ring of descriptors in memory that a device reads and writes: rows in,
// descriptors out; finished descriptors in, completions out. What a descriptor
// looks like is data (forms.h); which slots are whose is the channel's
// (lib/engines/vfio/ring-backend.ts).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "abi.h"
#include "queue/check.h"
#include "queue/table.h"
#include "ring/completion_queue.h"
#include "ring/forms.h"
#include "support/columns.h"
#include "support/mapped_range.h"
#include "support/uses.h"

namespace p2pdma::ring {

// By slot of the ring: what was posted there (lib/engines/vfio/ring-rows.ts).
struct RowColumns {
  Column<double> cookies;
  Column<double> offsets;
  Column<double> lengths;
  Column<uint32_t> ids;
  Column<double> places;   // in the device's storage, bytes
  Column<uint8_t> kinds;   // which of the ring's operations
  Column<uint8_t> stages;  // where completions are in a ring of their own
};

struct PostResult {
  uint32_t accepted = 0;
  // Of the first row that was not accepted.
  abi::row_defect::RowDefect defect = abi::row_defect::kNone;
};

class Ring {
 public:
  // `descriptors` lie at the beginning of the memory, `entries` of them, a power of two.
  // `completions`: null where they are in the descriptors. There is an operation.
  Ring(std::shared_ptr<MappedRange> memory, uint32_t entries, Form form,
       std::vector<Operation> operations, std::unique_ptr<CompletionQueue> completions,
       RowColumns rows);

  // Whether the memory is still there.
  bool usable() const {
    return !memory_->retired && (completions_ == nullptr || completions_->usable());
  }
  uint32_t entries() const { return mask_ + 1; }

  // Fills descriptors from `slot` on, until a row is malformed or has to wait.
  PostResult Post(const BatchColumns& batch, uint32_t first, uint32_t count, uint32_t slot);
  // Fills `count` descriptors from `slot` on again, with what was posted there.
  void Refill(uint32_t slot, uint32_t count);

  // --- completions in the descriptors ---

  // How many from `slot` on the device has finished, in order; `most` at most.
  uint32_t Done(uint32_t slot, uint32_t most) const;
  // Completions of `count` finished slots. One that went wrong has status
  // DEVICE_ERROR, and its word as the result; returns how many.
  uint32_t Complete(uint32_t slot, uint32_t count, uint32_t epoch,
                    const CompletionColumns& out) const;

  // --- completions in a ring of their own ---

  // Null where they are in the descriptors.
  CompletionQueue* completions() const { return completions_.get(); }
  // Takes what the device has written off its ring, of `pending` slots from `slot` on; what is
  // none of theirs is dropped, and counted. Returns whether there was anything.
  bool Poll(uint32_t slot, uint32_t pending);
  // How many it has taken that nobody has been given, in the order in which they ended.
  uint32_t finished() const { return finished_; }
  uint32_t unmatched() const { return unmatched_; }
  // As Complete(), of `count` of these.
  uint32_t Give(uint32_t count, uint32_t epoch, const CompletionColumns& out);
  // How many slots from `slot` on, `pending` at most, nobody waits for any more.
  uint32_t Past(uint32_t slot, uint32_t pending) const;
  // The device's ring begins anew.
  void Rewind();

  queue::TableColumns table;
  // Which attachments the rows name; has room for those of the table.
  Uses uses;

 private:
  using Row = queue::Row<queue::Attachment>;
  using Checker = queue::Checker<queue::TableReader<queue::TableColumns>>;

  // What becomes a descriptor.
  struct Filling {
    uint64_t iova = 0;
    uint64_t length = 0;
    uint64_t place = 0;
    const Operation* operation = nullptr;
  };

  bool IsPlain() const;
  // Flat: else the check of a row is taken out of the loop, 15% of a batch of 32.
  [[gnu::flatten]] PostResult PostPlain(const BatchColumns& batch, uint32_t first, uint32_t count,
                                        uint32_t slot);
  PostResult PostAny(const BatchColumns& batch, uint32_t first, uint32_t count, uint32_t slot);
  // Which of the operations a row is; or why it is none.
  const Operation* Find(Checker& checker) const;
  queue::Rules RulesOfAll() const;

  volatile uint32_t* At(uint32_t slot) const { return words_ + (slot & mask_) * stride_; }
  void Write(uint32_t slot, uint64_t iova, uint32_t length);
  void WriteAny(uint32_t slot, const Filling& filling);
  void EndBatch(uint32_t slot, uint32_t count);

  const std::shared_ptr<MappedRange> memory_;
  volatile uint32_t* const words_;
  const uint32_t mask_;
  const Form form_;
  const uint32_t stride_;
  const std::vector<Operation> operations_;
  const queue::Rules rules_;
  const std::unique_ptr<CompletionQueue> completions_;
  const RowColumns rows_;
  // `form_`, as it is written.
  std::vector<uint64_t> pairs_;
  const uint32_t address_pair_;
  const uint32_t length_pair_;
  const uint32_t length_shift_;
  const bool is_plain_;
  // By slot: the one that reports for it.
  std::vector<uint32_t> reporters_;
  // A ring of slots that have ended, and by slot the word that says how.
  std::vector<uint32_t> ended_;
  std::vector<uint32_t> endings_;
  uint32_t first_ended_ = 0;
  uint32_t finished_ = 0;
  uint32_t unmatched_ = 0;
};

}  // namespace p2pdma::ring
