// Completions that a device writes into a ring of their own, in the order in
// which operations end: each names the slot of its descriptor, and a phase bit
// tells the new ones from those of the round before.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "ring/forms.h"
#include "support/mapped_range.h"

namespace p2pdma::ring {

class CompletionQueue {
 public:
  // The memory holds `form.entries` of `form.words` each.
  CompletionQueue(std::shared_ptr<MappedRange> memory, CompletionForm form)
      : memory_(std::move(memory)),
        words_(reinterpret_cast<volatile uint32_t*>(memory_->data)),
        form_(form) {}

  bool usable() const { return !memory_->retired; }

  // The device begins at the first entry again, which are zeroed.
  void Rewind() {
    next_ = 0;
    phase_ = form_.phase_mask;
  }

  // The next entry that it comes to.
  uint32_t next() const { return next_; }

  // Takes one that the device has written: whom it is of, as the device says, and the word that
  // says whether it went well.
  bool Take(uint32_t* id, uint32_t* word) {
    const volatile uint32_t* const at = words_ + size_t{next_} * form_.words;
    const uint32_t phase = at[form_.phase_word];
    if ((phase & form_.phase_mask) != phase_) return false;
    // What the device wrote before the word that says so is read after it.
    std::atomic_thread_fence(std::memory_order_acquire);
    *id = (at[form_.id_word] & form_.id_mask) >> form_.id_shift;
    *word = at[form_.good_word];
    if (++next_ == form_.entries) {
      next_ = 0;
      phase_ ^= form_.phase_mask;
    }
    return true;
  }

  bool IsGood(uint32_t word) const { return (word & form_.good_mask) == form_.good_value; }
  uint32_t entries() const { return form_.entries; }

 private:
  const std::shared_ptr<MappedRange> memory_;
  volatile uint32_t* const words_;
  const CompletionForm form_;
  uint32_t next_ = 0;
  uint32_t phase_ = form_.phase_mask;
};

}  // namespace p2pdma::ring
