#include "ring.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "abi.h"

namespace p2pdma::ring {

namespace {

constexpr uint32_t PairOf(uint32_t word) { return word == kNoWord ? kNoWord : word / 2; }

bool NamesStorage(const queue::Attachment* place) {
  return place != nullptr && (place->access & abi::kStorageAccess) != 0;
}

StorageSide StorageSideOf(const queue::Row<queue::Attachment>& row) {
  if (NamesStorage(row.target)) return StorageSide::kTarget;
  return NamesStorage(row.source) ? StorageSide::kSource : StorageSide::kNone;
}

}  // namespace

Ring::Ring(std::shared_ptr<MappedRange> memory, uint32_t entries, Form form,
           std::vector<Operation> operations, std::unique_ptr<CompletionQueue> completions,
           RowColumns rows)
    : memory_(std::move(memory)),
      words_(reinterpret_cast<volatile uint32_t*>(memory_->data)),
      mask_(entries - 1),
      form_(std::move(form)),
      stride_(static_cast<uint32_t>(form_.words.size())),
      operations_(std::move(operations)),
      rules_(RulesOfAll()),
      completions_(std::move(completions)),
      rows_(rows),
      address_pair_(form_.address_word / 2),
      length_pair_(PairOf(form_.length_word)),
      length_shift_(form_.length_word % 2 * 32),
      is_plain_(IsPlain()),
      reporters_(entries),
      ended_(completions_ == nullptr ? 0 : entries),
      endings_(completions_ == nullptr ? 0 : entries) {
  for (uint32_t word = 0; word < stride_; word += 2) {
    pairs_.push_back(form_.words[word] | uint64_t{form_.words[word + 1]} << 32);
  }
}

// One operation on one attachment, of an address and a length: most NICs.
bool Ring::IsPlain() const {
  const Operation& first = operations_[0];
  const bool is_one_sided = first.op == abi::op::kSend || first.op == abi::op::kReceive;
  return operations_.size() == 1 && is_one_sided && completions_ == nullptr &&
         first.alignment == 1 && first.code == 0 && form_.block_bytes == 1 &&
         form_.length_less == 0 && form_.second_page_word == kNoWord && form_.id_word == kNoWord;
}

queue::Rules Ring::RulesOfAll() const {
  queue::Rules all{0, UINT64_MAX, 0};
  for (const Operation& each : operations_) {
    all.ops |= 1U << each.op;
    all.min_length = std::min<uint64_t>(all.min_length, each.min_length);
    all.max_length = std::max<uint64_t>(all.max_length, each.max_length);
  }
  return all;
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

void Ring::WriteAny(uint32_t slot, const Filling& filling) {
  uint64_t pairs[kMaxWords / 2];
  std::copy(pairs_.begin(), pairs_.end(), pairs);
  const auto add = [&pairs](uint32_t word, uint64_t value) {
    pairs[word / 2] |= value << (word % 2 * 32);
  };
  const uint64_t end = filling.iova + filling.length;
  pairs[address_pair_] |= filling.iova;
  add(form_.operation_word, filling.operation->code);
  if (form_.length_word != kNoWord) {
    const uint64_t blocks = filling.length / form_.block_bytes;
    add(form_.length_word, blocks < form_.length_less ? 0 : blocks - form_.length_less);
  }
  if (form_.storage_word != kNoWord) {
    pairs[form_.storage_word / 2] |= filling.place / form_.block_bytes;
  }
  if (form_.id_word != kNoWord) add(form_.id_word, uint64_t{slot & mask_} << form_.id_shift);
  if (form_.second_page_word != kNoWord) {
    const uint64_t second = (filling.iova | (form_.page_bytes - 1)) + 1;
    if (second < end) pairs[form_.second_page_word / 2] |= second;
  }
  volatile auto* const at = reinterpret_cast<volatile uint64_t*>(At(slot));
  for (uint32_t pair = 0; pair < pairs_.size(); ++pair) at[pair] = pairs[pair];
}

void Ring::EndBatch(uint32_t slot, uint32_t count) {
  if (count == 0 || form_.last_bits == 0) return;
  const uint32_t last = (slot + count - 1) & mask_;
  volatile uint32_t* const word = At(last) + form_.last_word;
  *word = *word | form_.last_bits;
  for (uint32_t i = 0; i < count; ++i) reporters_[(slot + i) & mask_] = last;
}

PostResult Ring::Post(const BatchColumns& batch, uint32_t first, uint32_t count, uint32_t slot) {
  return is_plain_ ? PostPlain(batch, first, count, slot) : PostAny(batch, first, count, slot);
}

PostResult Ring::PostPlain(const BatchColumns& batch, uint32_t first, uint32_t count,
                           uint32_t slot) {
  const bool sends = operations_[0].op == abi::op::kSend;
  queue::TableReader attachments(table);
  Noting noting(uses);
  Checker checker(batch, attachments, attachments, rules_);
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

const Operation* Ring::Find(Checker& checker) const {
  const Row& row = checker.row;
  const StorageSide storage = StorageSideOf(row);
  // A copy within the storage has no side of ours.
  const bool has_none = NamesStorage(row.source) && NamesStorage(row.target);
  const auto is_it = [&](const Operation& each) {
    return each.op == row.op && each.storage == storage && !has_none;
  };
  const auto found = std::find_if(operations_.begin(), operations_.end(), is_it);
  if (found == operations_.end()) {
    checker.Fail(abi::row_defect::kStorage);
    return nullptr;
  }
  const uint64_t rest = found->alignment - 1;
  if (row.length < found->min_length || row.length > found->max_length) {
    checker.Fail(abi::row_defect::kLength);
  } else if ((row.length & rest) != 0) {
    checker.Fail(abi::row_defect::kLengthAlignment);
  } else if ((row.source_offset & rest) != 0) {
    checker.Fail(abi::row_defect::kSourceAlignment);
  } else if ((row.target_offset & rest) != 0) {
    checker.Fail(abi::row_defect::kTargetAlignment);
  } else {
    return &*found;
  }
  return nullptr;
}

PostResult Ring::PostAny(const BatchColumns& batch, uint32_t first, uint32_t count, uint32_t slot) {
  // An operation that names two attachments: each is kept until the row is written.
  queue::TableReader sources(table);
  queue::TableReader targets(table);
  Noting noting(uses);
  Checker checker(batch, sources, targets, rules_);
  const Row& row = checker.row;
  uint32_t accepted = 0;
  for (; accepted < count && checker.Read(first + accepted); ++accepted) {
    const Operation* const operation = Find(checker);
    const uint32_t here = (slot + accepted) & mask_;
    if (operation == nullptr || !noting.Note(row, here)) break;
    // What is ours of it.
    const bool is_source = row.target == nullptr || operation->storage == StorageSide::kTarget;
    const uint64_t offset = is_source ? row.source_offset : row.target_offset;
    const uint64_t place = is_source ? row.target_offset : row.source_offset;
    const uint64_t iova = (is_source ? row.source : row.target)->iova + offset;
    WriteAny(here, {iova, row.length, place, operation});
    rows_.ids.Write(here, is_source ? row.source_id : row.target_id);
    rows_.offsets.Write(here, static_cast<double>(offset));
    rows_.places.Write(here, static_cast<double>(place));
    rows_.lengths.Write(here, static_cast<double>(row.length));
    rows_.cookies.Write(here, batch.cookie.Read(first + accepted));
    rows_.kinds.Write(here, static_cast<uint8_t>(operation - operations_.data()));
    rows_.stages.Write(here, abi::stage::kHanded);
  }
  EndBatch(slot, accepted);
  return {accepted, checker.defect};
}

void Ring::Refill(uint32_t slot, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t here = (slot + i) & mask_;
    const uint32_t id_place = rows_.ids.Read(here) & queue::kSlotMask;
    const uint8_t kind = rows_.kinds.Read(here);
    if (id_place >= table.capacity || kind >= operations_.size()) return;
    uint64_t iova = 0;
    uint64_t offset = 0;
    uint64_t length = 0;
    uint64_t place = 0;
    Whole(table.iovas.Read(id_place), &iova);
    Whole(rows_.offsets.Read(here), &offset);
    Whole(rows_.lengths.Read(here), &length);
    Whole(rows_.places.Read(here), &place);
    if (is_plain_) {
      Write(here, iova + offset, static_cast<uint32_t>(length));
    } else {
      WriteAny(here, {iova + offset, length, place, &operations_[kind]});
      rows_.stages.Write(here, abi::stage::kHanded);
    }
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

bool Ring::Poll(uint32_t slot, uint32_t pending) {
  uint32_t id = 0;
  uint32_t word = 0;
  uint32_t taken = 0;
  while (taken < completions_->entries() && completions_->Take(&id, &word)) {
    ++taken;
    const bool is_ours = id < entries() && ((id - slot) & mask_) < pending &&
                         rows_.stages.Read(id) == abi::stage::kHanded && finished_ < entries();
    if (!is_ours) {
      ++unmatched_;
      continue;
    }
    rows_.stages.Write(id, abi::stage::kDone);
    endings_[id] = word;
    ended_[(first_ended_ + finished_++) & mask_] = id;
  }
  return taken != 0;
}

uint32_t Ring::Give(uint32_t count, uint32_t epoch, const CompletionColumns& out) {
  uint32_t bad = 0;
  for (uint32_t row = 0; row < count; ++row) {
    const uint32_t here = ended_[first_ended_];
    first_ended_ = (first_ended_ + 1) & mask_;
    const bool good = completions_->IsGood(endings_[here]);
    out.cookie.Write(row, rows_.cookies.Read(here));
    out.result.Write(row, good ? rows_.lengths.Read(here) : endings_[here]);
    out.status.Write(row, good ? abi::status::kOk : abi::status::kDeviceError);
    out.epoch.Write(row, epoch);
    rows_.stages.Write(here, abi::stage::kReaped);
    bad += good ? 0 : 1;
  }
  finished_ -= count;
  return bad;
}

uint32_t Ring::Past(uint32_t slot, uint32_t pending) const {
  uint32_t past = 0;
  while (past < pending && rows_.stages.Read((slot + past) & mask_) == abi::stage::kReaped) ++past;
  return past;
}

void Ring::Rewind() {
  first_ended_ = 0;
  finished_ = 0;
  if (completions_ != nullptr) completions_->Rewind();
}

}  // namespace p2pdma::ring
