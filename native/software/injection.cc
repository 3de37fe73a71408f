#include "injection.h"

#include <algorithm>
#include <utility>

#include "channel.h"
#include "wait.h"

namespace p2pdma::software {

namespace {

constexpr uint64_t kStrayValue = 0x2159415254532121;  // "!!STRAY!"
constexpr uint64_t kStrayPoll = 500'000;              // ns
constexpr uint64_t kStrayPatience = 2'000'000'000;    // ns

}  // namespace

void StrayWrites::Schedule(const Injection& injection, AttachmentTable::Retired retired) {
  const uint64_t offset = injection.offset & ~uint64_t{7};
  if (retired.size < 8 || offset > retired.size - 8) return;
  auto* place = reinterpret_cast<uint64_t*>(retired.base + offset);
  const uint64_t now = Now();
  Stray stray{std::move(retired), place, __atomic_load_n(place, __ATOMIC_RELAXED), kNever,
              now + kStrayPatience};
  if (injection.parameter != kNever) stray.due = now + injection.parameter;
  const std::lock_guard lock(mutex_);
  // The mapping has gone by now: an error would say that it has not.
  if (!TryPush(&strays_, std::move(stray))) return;
  count_.store(static_cast<uint32_t>(strays_.size()), std::memory_order_release);
}

uint32_t StrayWrites::Run(uint64_t now, uint64_t* deadline) {
  if (empty()) return 0;
  uint32_t written = 0;
  const std::lock_guard lock(mutex_);
  for (auto it = strays_.begin(); it != strays_.end();) {
    const bool due =
        it->due != kNever
            ? now >= it->due
            : now >= it->latest || __atomic_load_n(it->place, __ATOMIC_RELAXED) != it->before;
    if (!due) {
      *deadline = std::min({*deadline, it->due, now + kStrayPoll});
      ++it;
      continue;
    }
    __atomic_store_n(it->place, kStrayValue, __ATOMIC_RELAXED);
    ++written;
    it = strays_.erase(it);
  }
  count_.store(static_cast<uint32_t>(strays_.size()), std::memory_order_release);
  return written;
}

}  // namespace p2pdma::software
