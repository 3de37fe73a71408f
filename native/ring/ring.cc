#include "ring.h"

#include <atomic>
#include <utility>

#include "abi.h"
#include "queue/check.h"

namespace p2pdma::ring {

Ring::Ring(std::shared_ptr<MappedRange> memory, uint64_t offset, uint32_t entries, Form form,
           Limits limits, RowColumns rows)
    : memory_(std::move(memory)),
      words_(reinterpret_cast<volatile uint32_t*>(memory_->data + offset)),
      mask_(entries - 1),
      form_(std::move(form)),
      stride_(static_cast<uint32_t>(form_.words.size())),
      limits_(limits),
      rows_(rows),
      address_pair_(form_.address_word / 2),
      length_pair_(form_.has_length ? form_.length_word / 2 : UINT32_MAX),
      length_shift_(form_.length_word % 2 * 32),
      reporters_(entries) {
  for (uint32_t word = 0; word < stride_; word += 2) {
    pairs_.push_back(form_.words[word] | uint64_t{form_.words[word + 1]} << 32);
  }
}

// By 64 bits: half the stores, and an address is never seen half.
void Ring::Write(uint32_t slot, uint64_t iova, uint32_t length) {
  volatile auto* const at = reinterpret_cast<volatile uint64_t*>(At(slot));
  for (uint32_t pair = 0; pair < pairs_.size(); ++pair) {
    uint64_t value = pairs_[pair];
    if (pair == address_pair_) value |= iova;
    if (pair == length_pair_) value |= uint64_t{length} << length_shift_;
    at[pair] = value;
  }
}

void Ring::EndBatch(uint32_t slot, uint32_t count) {
  if (count == 0 || form_.last_bits == 0) return;
  const uint32_t last = (slot + count - 1) & mask_;
  volatile uint32_t* const word = At(last) + form_.last_word;
  *word = *word | form_.last_bits;
  for (uint32_t i = 0; i < count; ++i) reporters_[(slot + i) & mask_] = last;
}

PostResult Ring::Post(const BatchColumns& batch, uint32_t first, uint32_t count, uint32_t slot) {
  const bool sends = limits_.op == abi::op::kSend;
  queue::TableReader attachments(table);
  Noting noting(uses);
  queue::Checker checker(batch, attachments, attachments,
                         {1U << limits_.op, limits_.min_length, limits_.max_length});
  const auto& row = checker.row;
  uint32_t accepted = 0;
  for (; accepted < count && checker.Read(first + accepted); ++accepted) {
    const uint64_t offset = sends ? row.source_offset : row.target_offset;
    const uint32_t here = (slot + accepted) & mask_;
    if (!noting.Note(row, here)) break;
    Write(here, (sends ? row.source : row.target)->iova + offset,
          static_cast<uint32_t>(row.length));
    rows_.ids.Write(here, sends ? row.source_id : row.target_id);
    rows_.offsets.Write(here, static_cast<double>(offset));
    rows_.lengths.Write(here, static_cast<double>(row.length));
    rows_.cookies.Write(here, batch.cookie.Read(first + accepted));
  }
  EndBatch(slot, accepted);
  return {accepted, checker.defect};
}

void Ring::Refill(uint32_t slot, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t here = (slot + i) & mask_;
    const uint32_t place = rows_.ids.Read(here) & queue::kSlotMask;
    if (place >= table.capacity) return;
    uint64_t iova = 0;
    uint64_t offset = 0;
    uint64_t length = 0;
    Whole(table.iovas.Read(place), &iova);
    Whole(rows_.offsets.Read(here), &offset);
    Whole(rows_.lengths.Read(here), &length);
    Write(here, iova + offset, static_cast<uint32_t>(length));
  }
  EndBatch(slot, count);
}

uint32_t Ring::Done(uint32_t slot, uint32_t most) const {
  uint32_t done = 0;
  while (done < most) {
    const uint32_t here = (slot + done) & mask_;
    const uint32_t reporter = form_.last_bits == 0 ? here : reporters_[here];
    if ((At(reporter)[form_.done_word] & form_.done_mask) == 0) break;
    done += ((reporter - here) & mask_) + 1;
  }
  // What the device wrote before the word that says so is read after it.
  std::atomic_thread_fence(std::memory_order_acquire);
  return done < most ? done : most;
}

uint32_t Ring::Complete(uint32_t slot, uint32_t count, uint32_t epoch,
                        const CompletionColumns& out) const {
  uint32_t bad = 0;
  for (uint32_t row = 0; row < count; ++row) {
    const uint32_t here = (slot + row) & mask_;
    const volatile uint32_t* const at = At(here);
    const uint32_t state = at[form_.done_word];
    const bool good = (state & form_.good_mask) == form_.good_value;
    out.cookie.Write(row, rows_.cookies.Read(here));
    out.result.Write(row, good ? at[form_.result_word] & form_.result_mask : state);
    out.status.Write(row, good ? abi::status::kOk : abi::status::kDeviceError);
    out.epoch.Write(row, epoch);
    bad += good ? 0 : 1;
  }
  return bad;
}

}  // namespace p2pdma::ring
