// Channel::Post: checks rows, resolves them against the mappings of this
// moment, and puts them into the submission ring.
#include "../queue/check.h"
#include "channel.h"

namespace p2pdma::software {

namespace {

// The attachments as the check of a row wants them.
struct OpenAttachments {
  using Place = AttachmentTable::Entry;
  const AttachmentTable& table;
  const Place* Open(uint32_t id) const {
    const Place* const entry = table.Find(id);
    return entry == nullptr || entry->sealed ? nullptr : entry;
  }
};

constexpr queue::Rules kRules = {queue::Bit(Op::kNop) | queue::Bit(Op::kCopy) |
                                     queue::Bit(Op::kFill) | queue::Bit(Op::kFetchAdd),
                                 0, UINT64_MAX};

uint32_t Generation(const AttachmentTable::Entry* entry) {
  return entry == nullptr ? 0 : entry->generation.load(std::memory_order_relaxed);
}

}  // namespace

PostResult Channel::Post(const AttachmentTable& table, const BatchColumns& batch, uint32_t first,
                         uint32_t count) {
  PostResult result;
  if (first > batch.capacity || count > batch.capacity - first) return result;
  if (state_.load(std::memory_order_relaxed) != State::kRunning) return result;
  const uint32_t room = depth_ - in_flight();
  if (count > room) count = room;
  OpenAttachments attachments{table};
  Noting noting(uses);
  queue::Checker checker(batch, attachments, attachments, kRules);
  for (; result.accepted < count && checker.Read(first + result.accepted); ++result.accepted) {
    const auto& row = checker.row;
    // A long copy is interrupted and resumed between chunks: no order of them is
    // right for ranges that overlap.
    if (row.Overlaps()) {
      checker.Fail(RowDefect::kOverlap);
      break;
    }
    const uint64_t position = posted_local_ + result.accepted;
    if (!noting.Note(row, static_cast<uint32_t>(position & mask_))) break;
    Operation& operation = At(position);
    operation.source_offset = row.source_offset;
    operation.target_offset = row.target_offset;
    operation.length = row.length;
    operation.operand = row.operand;
    operation.cookie = batch.cookie.Read(first + result.accepted);
    operation.source = row.source_id;
    operation.target = row.target_id;
    operation.source_generation = Generation(row.source);
    operation.target_generation = Generation(row.target);
    operation.op = row.op;
    operation.verdict = Status::kOk;
  }
  result.defect = checker.defect;
  if (result.accepted != 0) {
    posted_local_ += result.accepted;
    // seq_cst: published before `Engine::Wake` looks whether the device sleeps.
    posted_.store(posted_local_, std::memory_order_seq_cst);
  }
  return result;
}

ReapResult Channel::Reap(const CompletionColumns& out) {
  const uint64_t done = done_.load(std::memory_order_acquire);
  ReapResult result;
  uint32_t& rows = result.rows;
  const auto put = [&](const Completion& completion) {
    out.cookie.Write(rows, completion.cookie);
    out.result.Write(rows, completion.result);
    out.status.Write(rows, static_cast<uint32_t>(completion.status));
    out.epoch.Write(rows, completion.epoch);
    ++rows;
  };
  while (rows < out.capacity && reaped_ != done) put(completions_[reaped_++ & mask_]);
  if (rows < out.capacity && late_count_.load(std::memory_order_acquire) != 0) {
    const Control control(*this);
    while (rows < out.capacity && !late_.empty()) {
      put(late_.front());
      late_.pop_front();
      // What hung when the channel was forced: completions_ hold nothing older (Force).
      ++result.stale;
    }
    late_count_.store(static_cast<uint32_t>(late_.size()), std::memory_order_release);
  }
  return result;
}

}  // namespace p2pdma::software
