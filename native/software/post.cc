// Channel::Post: checks rows, resolves them against the mappings of this
// moment, and puts them into the submission ring.
#include "channel.h"

namespace p2pdma::software {

namespace {

enum class Row { kGood, kMalformed, kNotMapped };

class RowReader {
 public:
  RowReader(const AttachmentTable& table, const BatchColumns& batch, PostResult* result)
      : table_(table), batch_(batch), result_(result) {}

  Row Read(uint32_t row, Operation* out) {
    row_ = row;
    const uint8_t op = batch_.op.Read(row);
    out->cookie = batch_.cookie.Read(row);
    out->verdict = Status::kOk;
    out->op = static_cast<Op>(op);
    switch (out->op) {
      case Op::kNop:
        out->length = 0;
        out->source_generation = 0;
        out->target_generation = 0;
        return Row::kGood;
      case Op::kCopy:
        return Copy(out);
      case Op::kFill:
        return Fill(out);
      case Op::kFetchAdd:
        return FetchAdd(out);
      default:
        return Malformed(ColumnName::kOp, Defect::kUnknownOp);
    }
  }

 private:
  Row Malformed(ColumnName column, Defect defect) {
    result_->defect = defect;
    result_->column = column;
    result_->row = row_;
    return Row::kMalformed;
  }

  Row Copy(Operation* out) {
    if (!Whole(batch_.length.Read(row_), &out->length)) {
      return Malformed(ColumnName::kLength, Defect::kNotWhole);
    }
    if (!Whole(batch_.source_offset.Read(row_), &out->source_offset)) {
      return Malformed(ColumnName::kSourceOffset, Defect::kNotWhole);
    }
    out->source = batch_.source.Read(row_);
    const Row target = Target(out);
    if (target != Row::kGood) return target;
    const auto* source = table_.Find(out->source);
    if (source == nullptr || source->sealed) return Row::kNotMapped;
    if ((source->access & Access::kRead) == 0) {
      return Malformed(ColumnName::kSource, Defect::kAccess);
    }
    if (!Inside(*source, out->source_offset, out->length)) {
      return Malformed(ColumnName::kSourceOffset, Defect::kOutOfBounds);
    }
    // A long copy is interrupted and resumed between chunks: no order of them
    // is right for ranges that overlap.
    if (out->source == out->target && out->length != 0 &&
        out->source_offset < out->target_offset + out->length &&
        out->target_offset < out->source_offset + out->length) {
      return Malformed(ColumnName::kTargetOffset, Defect::kOverlap);
    }
    out->source_generation = source->generation.load(std::memory_order_relaxed);
    return Row::kGood;
  }

  Row Fill(Operation* out) {
    if (!Whole(batch_.length.Read(row_), &out->length)) {
      return Malformed(ColumnName::kLength, Defect::kNotWhole);
    }
    if (!Whole(batch_.operand.Read(row_), &out->operand)) {
      return Malformed(ColumnName::kOperand, Defect::kNotWhole);
    }
    if (out->operand > 255) return Malformed(ColumnName::kOperand, Defect::kNotByte);
    out->source_generation = 0;
    return Target(out);
  }

  Row FetchAdd(Operation* out) {
    const double length = batch_.length.Read(row_);
    if (length != 8) return Malformed(ColumnName::kLength, Defect::kNotEight);
    out->length = 8;
    if (!Whole(batch_.operand.Read(row_), &out->operand)) {
      return Malformed(ColumnName::kOperand, Defect::kNotWhole);
    }
    out->source_generation = 0;
    const Row target = Target(out);
    if (target == Row::kGood && (out->target_offset & 7) != 0) {
      return Malformed(ColumnName::kTargetOffset, Defect::kUnaligned);
    }
    return target;
  }

  Row Target(Operation* out) {
    if (!Whole(batch_.target_offset.Read(row_), &out->target_offset)) {
      return Malformed(ColumnName::kTargetOffset, Defect::kNotWhole);
    }
    out->target = batch_.target.Read(row_);
    const auto* target = table_.Find(out->target);
    if (target == nullptr || target->sealed) return Row::kNotMapped;
    if ((target->access & Access::kWrite) == 0) {
      return Malformed(ColumnName::kTarget, Defect::kAccess);
    }
    if (!Inside(*target, out->target_offset, out->length)) {
      return Malformed(ColumnName::kTargetOffset, Defect::kOutOfBounds);
    }
    out->target_generation = target->generation.load(std::memory_order_relaxed);
    return Row::kGood;
  }

  static bool Inside(const AttachmentTable::Entry& entry, uint64_t offset, uint64_t length) {
    return offset <= entry.size && length <= entry.size - offset;
  }

  const AttachmentTable& table_;
  const BatchColumns& batch_;
  PostResult* const result_;
  uint32_t row_ = 0;
};

}  // namespace

PostResult Channel::Post(const AttachmentTable& table, const BatchColumns& batch, uint32_t first,
                         uint32_t count) {
  PostResult result;
  if (first > batch.capacity || count > batch.capacity - first) {
    result.defect = Defect::kNoSuchRow;
    return result;
  }
  if (state_.load(std::memory_order_relaxed) != State::kRunning) return result;
  const uint32_t room = depth_ - in_flight();
  if (count > room) count = room;
  RowReader reader(table, batch, &result);
  while (result.accepted < count) {
    Operation& operation = At(posted_local_ + result.accepted);
    if (reader.Read(first + result.accepted, &operation) != Row::kGood) break;
    ++result.accepted;
  }
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
