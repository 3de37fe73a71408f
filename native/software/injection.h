// Deliberate faults, for the tests and for `p2pdma smoke --inject`: what a
// broken device would do, so that one can see that it is noticed.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "../abi.h"
#include "table.h"
#include "types.h"

namespace p2pdma::software {

using abi::fault::Fault;

struct Injection {
  Fault fault;
  uint32_t channel;  // 0: whichever comes first
  // kDoubled: operations of the channel in between (0: its next idle moment).
  // kStall: nanoseconds, or kNever. kStray: nanoseconds until the write, or
  // kNever: when the exporter has overwritten the place, or has not for `patience`.
  uint64_t parameter;
  uint64_t offset;  // kStray: into the attachment
};

// Written by the JavaScript thread, read by the device at the start of an operation.
class InjectionBook {
 public:
  void Add(const Injection& injection) {
    const std::lock_guard lock(mutex_);
    pending_.push_back(injection);
    count_.store(static_cast<uint32_t>(pending_.size()), std::memory_order_release);
  }
  bool empty() const { return count_.load(std::memory_order_acquire) == 0; }
  // Takes the first fault of this kind meant for this channel.
  std::optional<Injection> Take(Fault fault, uint32_t channel) {
    const std::lock_guard lock(mutex_);
    for (auto it = pending_.begin(); it != pending_.end(); ++it) {
      if (it->fault != fault || (it->channel != 0 && it->channel != channel)) continue;
      const Injection taken = *it;
      pending_.erase(it);
      count_.store(static_cast<uint32_t>(pending_.size()), std::memory_order_release);
      return taken;
    }
    return std::nullopt;
  }

 private:
  std::mutex mutex_;
  std::vector<Injection> pending_;
  std::atomic<uint32_t> count_{0};
};

// Writes into retired ranges that are still to come.
class StrayWrites {
 public:
  // JavaScript thread: `retired` has just been unmapped.
  void Schedule(const Injection& injection, AttachmentTable::Retired retired);
  // Device thread: writes what is due; returns how many, and lowers `*deadline`.
  uint32_t Run(uint64_t now, uint64_t* deadline);
  bool empty() const { return count_.load(std::memory_order_acquire) == 0; }

 private:
  struct Stray {
    AttachmentTable::Retired retired;
    uint64_t* place;
    uint64_t before;
    uint64_t due;     // kNever: when `*place` is no longer `before`
    uint64_t latest;  // then at the latest
  };
  std::mutex mutex_;
  std::vector<Stray> strays_;
  std::atomic<uint32_t> count_{0};
};

}  // namespace p2pdma::software
