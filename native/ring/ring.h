// A ring of descriptors in memory that a device reads and writes: rows in,
// descriptors out; finished descriptors in, completions out. What a descriptor
// looks like is data, given by the device's driver in TypeScript; which slots
// are whose is the channel's (lib/engines/vfio/ring-backend.ts).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "abi.h"
#include "queue/table.h"
#include "support/columns.h"
#include "support/mapped_range.h"
#include "support/uses.h"

namespace p2pdma::ring {

// A descriptor, in 32-bit words as the CPU has them. Word indexes are below
// the number of words.
struct Form {
  // What each descriptor has when it is handed over; as many as it has, an
  // even number.
  std::vector<uint32_t> words;
  uint32_t address_word = 0;  // even; and the next one: the IOVA
  uint32_t length_word = 0;   // the length is or'ed into it, where `has_length`
  bool has_length = false;
  // Or'ed into the last descriptor of each batch, which then reports for all
  // of it; 0: each reports for itself.
  uint32_t last_word = 0;
  uint32_t last_bits = 0;
  uint32_t done_word = 0;  // not 0 under `done_mask`: the device has finished it
  uint32_t done_mask = 0;
  uint32_t good_mask = 0;  // of the same word: as `good_value`, or it went wrong
  uint32_t good_value = 0;
  uint32_t result_word = 0;  // its bytes
  uint32_t result_mask = 0;
};

// What rows of this ring may be.
struct Limits {
  uint8_t op = 0;  // SEND or RECEIVE
  uint32_t min_length = 0;
  uint32_t max_length = 0;
};

// By slot of the ring: what was posted there (lib/engines/vfio/ring-rows.ts).
struct RowColumns {
  Column<double> cookies;
  Column<double> offsets;
  Column<double> lengths;
  Column<uint32_t> ids;
};

struct PostResult {
  uint32_t accepted = 0;
  // Of the first row that was not accepted.
  abi::row_defect::RowDefect defect = abi::row_defect::kNone;
};

class Ring {
 public:
  // `descriptors` lie at `offset` of the memory, `entries` of them, a power of two.
  Ring(std::shared_ptr<MappedRange> memory, uint64_t offset, uint32_t entries, Form form,
       Limits limits, RowColumns rows);

  // Whether the memory is still there.
  bool usable() const { return !memory_->retired; }
  uint32_t entries() const { return mask_ + 1; }

  // Fills descriptors from `slot` on, until a row is malformed or has to wait.
  PostResult Post(const BatchColumns& batch, uint32_t first, uint32_t count, uint32_t slot);
  // Fills `count` descriptors from `slot` on again, with what was posted there.
  void Refill(uint32_t slot, uint32_t count);
  // How many from `slot` on the device has finished, in order; `most` at most.
  uint32_t Done(uint32_t slot, uint32_t most) const;
  // Completions of `count` finished slots. One that went wrong has status
  // DEVICE_ERROR, and its word as the result; returns how many.
  uint32_t Complete(uint32_t slot, uint32_t count, uint32_t epoch,
                    const CompletionColumns& out) const;

  queue::TableColumns table;
  // Which attachments the rows name; has room for those of the table.
  Uses uses;

 private:
  volatile uint32_t* At(uint32_t slot) const { return words_ + (slot & mask_) * stride_; }
  void Write(uint32_t slot, uint64_t iova, uint32_t length);
  void EndBatch(uint32_t slot, uint32_t count);

  const std::shared_ptr<MappedRange> memory_;
  volatile uint32_t* const words_;
  const uint32_t mask_;
  const Form form_;
  const uint32_t stride_;
  const Limits limits_;
  const RowColumns rows_;
  // `form_`, as it is written.
  std::vector<uint64_t> pairs_;
  const uint32_t address_pair_;
  const uint32_t length_pair_;
  const uint32_t length_shift_;
  // By slot: the one that reports for it.
  std::vector<uint32_t> reporters_;
};

}  // namespace p2pdma::ring
