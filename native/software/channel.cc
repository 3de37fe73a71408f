// The controls of a channel, on the JavaScript thread.
#include "channel.h"

namespace p2pdma::software {

bool Channel::IsUsed(uint32_t id) const {
  const int64_t row = uses.LastRow(id);
  if (row < 0) return false;
  const uint64_t done = done_.load(std::memory_order_acquire);
  const uint64_t ahead = (static_cast<uint64_t>(row) - done) & mask_;
  if (ahead >= posted_local_ - done) return false;
  // Its place may be another row's by now; of one that is in the ring it is never written again.
  const Operation& operation = At(done + ahead);
  return (operation.target_generation != 0 && operation.target == id) ||
         (operation.source_generation != 0 && operation.source == id);
}

bool Channel::Stop() {
  State expected = State::kRunning;
  state_.compare_exchange_strong(expected, State::kStopping, std::memory_order_seq_cst);
  return expected == State::kStopped || expected == State::kClosed;
}

uint32_t Channel::Force() {
  const Control control(*this);
  zombies_.reserve(zombies_.size() + 1);
  const uint32_t old = epoch_++;
  if (epoch_ == 0) epoch_ = 1;
  const uint64_t done = done_.load(std::memory_order_relaxed);
  for (uint64_t p = reaped_; p != done; ++p) completions_[p & mask_].epoch = epoch_;
  if (done != posted_local_ && head_.begun) {
    Operation& operation = At(done);
    if (head_.hung) zombies_.push_back({operation, head_, old});
    // It cannot be told whether the device has done it, or will have.
    if (operation.op == Op::kFetchAdd) operation.verdict = Status::kOutcomeUnknown;
  }
  head_ = Progress{};
  again_.clear();
  state_.store(State::kStopped, std::memory_order_seq_cst);
  return epoch_;
}

bool Channel::Restart(const AttachmentTable& table) {
  const Control control(*this);
  if (state_.load(std::memory_order_relaxed) != State::kStopped) return false;
  const auto generation = [&](uint32_t id) -> uint32_t {
    const auto* entry = table.Find(id);
    return entry == nullptr ? 0 : entry->generation.load(std::memory_order_relaxed);
  };
  for (uint64_t p = done_.load(std::memory_order_relaxed); p != posted_local_; ++p) {
    Operation& operation = At(p);
    if (operation.op == Op::kNop || operation.verdict == Status::kOutcomeUnknown) continue;
    const uint32_t target = generation(operation.target);
    const uint32_t source = operation.op == Op::kCopy ? generation(operation.source) : 0;
    if (target == 0 || (operation.op == Op::kCopy && source == 0)) {
      operation.verdict = Status::kNotMapped;
      continue;  // the old generations stay, for IsUsed()
    }
    operation.verdict = Status::kOk;
    operation.target_generation = target;
    operation.source_generation = source;
  }
  state_.store(State::kRunning, std::memory_order_seq_cst);
  return true;
}

void Channel::Close() {
  const Control control(*this);
  state_.store(State::kClosed, std::memory_order_seq_cst);
  zombies_.clear();
  again_.clear();
  late_.clear();
  late_count_.store(0, std::memory_order_relaxed);
}

void Channel::Unstall() {
  const Control control(*this);
  if (head_.hung) head_.resume_at = 0;
  for (auto& zombie : zombies_) zombie.progress.resume_at = 0;
}

void Channel::SetSlow(uint64_t nanoseconds_per_chunk) {
  const Control control(*this);
  slow_ = nanoseconds_per_chunk;
  next_chunk_at_ = 0;
}

bool Channel::Arm() {
  // `kArmed` first, then a look at what is done; the device does it the other
  // way round.
  signals_.fetch_or(kArmed, std::memory_order_seq_cst);
  return Reapable() && Signal();
}

}  // namespace p2pdma::software
