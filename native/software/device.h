// The device itself: executes the operations of channels, chunk by chunk.
// Runs on the engine's thread and nowhere else.
#pragma once

#include <atomic>
#include <cstdint>

#include "channel.h"
#include "injection.h"
#include "table.h"

namespace p2pdma::software {

// Written by the device thread alone, read by anyone.
struct alignas(64) Stats {
  std::atomic<uint64_t> operations{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> chunks{0};
  std::atomic<uint64_t> faults{0};
  std::atomic<uint64_t> injected{0};
  std::atomic<uint64_t> sleeps{0};

  static void Add(std::atomic<uint64_t>* counter, uint64_t n) {
    counter->store(counter->load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
};

class Device {
 public:
  Device(AttachmentTable& table, InjectionBook& injections, Stats& stats)
      : table_(table), injections_(injections), stats_(stats) {}

  struct Turn {
    bool progress = false;       // something was done: come again soon
    bool more = false;           // something was left for the next turn: come again at once
    bool notify = false;         // there are events for the event loop
    uint64_t deadline = kNever;  // where there is no progress: when to come again
  };
  // One turn of a channel: one chunk, or a burst of small operations.
  Turn Visit(Channel& channel);

 private:
  void Run(Channel& channel, Turn* turn);
  void RunZombies(Channel& channel, Turn* turn);
  void RunAgain(Channel& channel, Turn* turn);
  bool ExecuteAgain(Operation& operation);
  void Begin(Channel& channel, const Operation& operation);
  // One chunk; returns the bytes it took from the turn's budget.
  uint64_t Step(Channel& channel, const Operation& operation, Progress* progress, bool* ended,
                Completion* completion);
  void Complete(Channel& channel, const Completion& completion);
  bool Touch(const Operation& operation, uint64_t at, uint64_t length, double* result);

  AttachmentTable& table_;
  InjectionBook& injections_;
  Stats& stats_;
  uint64_t position_ = 0;  // of the visited channel's head
};

}  // namespace p2pdma::software
