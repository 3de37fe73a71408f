#include "device.h"

#include <algorithm>
#include <cstring>

#include "../support/wide_copy.h"

namespace p2pdma::software {

namespace {

using Place = AttachmentTable::Place;

void Fill(Place target, uint8_t byte, uint64_t length) {
  // Of one byte all the way, so that it may begin anywhere.
  const uint64_t pattern = byte * uint64_t{0x0101010101010101};
  if (target.device) {
    FillWords(target.data, true, pattern, length);
  } else {
    std::memset(target.data, byte, length);
  }
}

uint64_t FetchAdd(Place target, uint64_t operand) {
  auto* const word = reinterpret_cast<uint64_t*>(target.data);
  if (!target.device) return __atomic_fetch_add(word, operand, __ATOMIC_SEQ_CST);
  // The bus carries no locked access to another device's memory: not atomic to anybody else.
  volatile uint64_t* const place = word;
  const uint64_t before = *place;
  *place = before + operand;
  return before;
}

}  // namespace

// Touches one chunk of memory, if both of its mappings are alive still.
bool Device::Touch(const Operation& operation, uint64_t at, uint64_t length, double* result) {
  const bool copies = operation.op == Op::kCopy;
  const AttachmentTable::Hold hold(table_, copies ? operation.source : operation.target,
                                   operation.target);
  const auto target = hold.Resolve(operation.target, operation.target_generation, Access::kWrite,
                                   operation.target_offset + at, length);
  if (target.data == nullptr) return false;
  switch (operation.op) {
    case Op::kCopy: {
      const auto source = hold.Resolve(operation.source, operation.source_generation, Access::kRead,
                                       operation.source_offset + at, length);
      if (source.data == nullptr) return false;
      // As memmove: two attachments may lie over the same memory.
      CopyBytes(target.data, target.device, source.data, source.device, length);
      return true;
    }
    case Op::kFill:
      Fill(target, static_cast<uint8_t>(operation.operand), length);
      return true;
    case Op::kFetchAdd:
      *result = static_cast<double>(FetchAdd(target, operation.operand));
      return true;
    default:
      return true;
  }
}

// The operation at the head starts: are there faults to inject?
void Device::Begin(Channel& channel, const Operation& operation) {
  Progress& head = channel.head_;
  head = Progress{};
  head.begun = true;
  head.end = operation.length;
  if (injections_.empty() || operation.verdict != Status::kOk) return;
  const auto take = [&](Fault fault) { return injections_.Take(fault, channel.index()); };
  if (const auto stall = take(Fault::kStall)) {
    head.hang_at = operation.op == Op::kFetchAdd ? 0 : operation.length / 2;
    head.hang_for = stall->parameter;
  }
  if (take(Fault::kDoubledCompletion)) head.doubled_completion = true;
  if (operation.op != Op::kCopy || operation.length == 0) return;
  if (take(Fault::kLost)) {
    head.lost = true;
  } else if (take(Fault::kTorn)) {
    head.end = operation.length / 2;
    Stats::Add(&stats_.injected, 1);
  } else if (const auto doubled = take(Fault::kDoubled)) {
    head.doubled = true;
    head.doubled_after = doubled->parameter;
  }
}

uint64_t Device::Step(Channel& channel, const Operation& operation, Progress* progress, bool* ended,
                      Completion* completion) {
  *ended = true;
  completion->cookie = operation.cookie;
  completion->status = operation.verdict;
  completion->result = 0;
  if (operation.verdict != Status::kOk) return 0;
  if (progress->at >= progress->hang_at) {
    progress->hang_at = kNever;
    progress->hung = true;
    progress->resume_at = progress->hang_for == kNever ? kNever : Now() + progress->hang_for;
    Stats::Add(&stats_.injected, 1);
    *ended = false;
    return 0;
  }
  if (operation.op == Op::kNop) return 0;
  if (progress->lost) {
    Stats::Add(&stats_.injected, 1);
    completion->result = static_cast<double>(operation.length);
    return 0;
  }
  uint64_t length = std::min(kChunkBytes, progress->end - progress->at);
  length = std::min(length, progress->hang_at - progress->at);
  if (channel.slow_ != 0) channel.next_chunk_at_ = Now() + channel.slow_;
  Stats::Add(&stats_.chunks, 1);
  if (!Touch(operation, progress->at, length, &completion->result)) {
    Stats::Add(&stats_.faults, 1);
    completion->status = Status::kFault;
    completion->result = static_cast<double>(progress->at);
    return 0;
  }
  progress->at += length;
  Stats::Add(&stats_.bytes, length);
  if (progress->at < progress->end || progress->at >= progress->hang_at) {
    *ended = false;
    return length;
  }
  if (operation.op != Op::kFetchAdd) completion->result = static_cast<double>(operation.length);
  return length;
}

Device::Turn Device::Visit(Channel& channel) {
  Turn turn;
  if (channel.wanted_.load(std::memory_order_relaxed) != 0) {
    sched_yield();
    turn.progress = true;
    return turn;
  }
  const std::lock_guard lock(channel.mutex_);
  if (channel.state_.load(std::memory_order_acquire) == State::kClosed) return turn;
  const uint64_t before = channel.done_.load(std::memory_order_relaxed);
  const size_t late = channel.late_.size();
  position_ = before;
  channel.seen_posted_ = channel.posted_.load(std::memory_order_acquire);
  if (!channel.zombies_.empty()) RunZombies(channel, &turn);
  Run(channel, &turn);
  if (!channel.again_.empty()) RunAgain(channel, &turn);

  if (position_ != before) channel.done_.store(position_, std::memory_order_seq_cst);
  if (channel.late_.size() != late) {
    channel.late_count_.store(static_cast<uint32_t>(channel.late_.size()),
                              std::memory_order_seq_cst);
  }
  // Published first, then the look whether somebody has armed.
  if ((position_ != before || channel.late_.size() != late) && channel.Signal()) {
    turn.notify = true;
  }
  return turn;
}

void Device::Run(Channel& channel, Turn* turn) {
  Progress& head = channel.head_;
  if (head.hung) {
    // Hung: it neither goes on nor answers a stop.
    if (head.resume_at != 0 && (head.resume_at == kNever || Now() < head.resume_at)) {
      turn->deadline = std::min(turn->deadline, head.resume_at);
      return;
    }
    head.hung = false;
    turn->progress = true;
  }
  uint64_t budget = kChunkBytes;
  for (uint32_t burst = 0; burst < kBurst; ++burst) {
    const State state = channel.state_.load(std::memory_order_acquire);
    if (state == State::kStopping) {
      channel.state_.store(State::kStopped, std::memory_order_release);
      channel.signals_.fetch_or(Channel::kQuiet, std::memory_order_release);
      turn->notify = true;
    }
    if (state != State::kRunning) return;
    if (position_ == channel.posted_.load(std::memory_order_acquire)) return;
    if (channel.next_chunk_at_ != 0 && Now() < channel.next_chunk_at_) {
      turn->deadline = std::min(turn->deadline, channel.next_chunk_at_);
      return;
    }
    turn->progress = true;
    const Operation& operation = channel.At(position_);
    if (!head.begun) Begin(channel, operation);
    bool ended = true;
    Completion completion;
    const uint64_t bytes = Step(channel, operation, &head, &ended, &completion);
    if (head.hung) return;
    if (ended) Complete(channel, completion);
    // One that is to be executed again is looked at after each operation: its time is told in them.
    if (bytes >= budget || !ended || !channel.again_.empty()) break;
    budget -= bytes;
  }
  turn->more = true;
}

void Device::Complete(Channel& channel, const Completion& completion) {
  Progress& head = channel.head_;
  Completion& slot = channel.completions_[position_ & channel.mask_];
  slot = completion;
  slot.epoch = channel.epoch_;
  if (head.doubled_completion && TryPush(&channel.late_, slot)) Stats::Add(&stats_.injected, 1);
  ++position_;
  if (head.doubled) {
    const Operation& operation = channel.At(position_ - 1);
    TryPush(&channel.again_,
            Channel::Again{operation,
                           head.doubled_after == 0 ? kNever : position_ + head.doubled_after});
  }
  Stats::Add(&stats_.operations, 1);
  head.begun = false;
}

// What hung when the channel was forced goes on when it can, with the
// resolution of its time. Its generations are dead if the importer has
// unmapped them; its epoch is over in any case, so that it cannot undo what
// has been repeated since.
void Device::RunZombies(Channel& channel, Turn* turn) {
  auto& zombies = channel.zombies_;
  for (auto it = zombies.begin(); it != zombies.end();) {
    const uint64_t resume_at = it->progress.resume_at;
    if (resume_at != 0 && (resume_at == kNever || Now() < resume_at)) {
      turn->deadline = std::min(turn->deadline, resume_at);
      ++it;
      continue;
    }
    Completion completion{it->operation.cookie, static_cast<double>(it->progress.at),
                          Status::kFault, it->epoch};
    if (!TryPush(&channel.late_, completion)) {
      turn->deadline = std::min(turn->deadline, Now() + kMemoryPatience);
      ++it;
      continue;
    }
    Stats::Add(&stats_.faults, 1);
    it = zombies.erase(it);
    turn->progress = true;
  }
}

// Deliberate fault: a COPY is executed a second time, against today's mappings.
// What is not mapped in this moment is tried again, and a stop that has not been
// answered yet does not hold it up: a fault that never comes would look like one
// that nobody has seen.
void Device::RunAgain(Channel& channel, Turn* turn) {
  const State state = channel.state_.load(std::memory_order_acquire);
  if (state != State::kRunning && state != State::kStopping) return;
  const bool idle = position_ == channel.posted_.load(std::memory_order_acquire);
  auto& again = channel.again_;
  for (auto it = again.begin(); it != again.end();) {
    if (it->after == kNever ? !idle : position_ < it->after) {
      ++it;
      continue;
    }
    if (!ExecuteAgain(it->operation)) {
      ++it;
      continue;
    }
    Stats::Add(&stats_.injected, 1);
    it = again.erase(it);
    turn->progress = true;
  }
}

// False where one of its ends is not mapped.
bool Device::ExecuteAgain(Operation& operation) {
  for (uint64_t at = 0; at < operation.length; at += kChunkBytes) {
    operation.source_generation = table_.Generation(operation.source);
    operation.target_generation = table_.Generation(operation.target);
    double unused = 0;
    const uint64_t length = std::min(kChunkBytes, operation.length - at);
    if (!Touch(operation, at, length, &unused)) return false;
  }
  return true;
}

}  // namespace p2pdma::software
