// One channel of the software engine: its rings and its controls.
//
// Operations run in order, so the operation at position p completes at
// position p: both rings share their positions, and since no more than `depth`
// are accepted and not reaped, neither can overflow.
//
//   reaped <= done <= posted <= reaped + depth
//
// The JavaScript thread writes `posted` and `reaped`, the device thread writes
// `done`. What else the device knows of the channel is guarded by `mutex`,
// which it holds for one turn (a chunk, or a burst of small operations) and
// which the JavaScript thread takes to force, restart, close or inject.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "../abi.h"
#include "../support/columns.h"
#include "../support/uses.h"
#include "table.h"
#include "types.h"
#include "wait.h"

namespace p2pdma::software {

using abi::row_defect::RowDefect;

enum class State : uint32_t { kRunning, kStopping, kStopped, kClosed };

struct PostResult {
  uint32_t accepted = 0;
  // Of the first row that was not accepted.
  RowDefect defect = RowDefect::kNone;
};

struct ReapResult {
  uint32_t rows = 0;
  uint32_t stale = 0;  // of an earlier epoch
};

// How far the operation at the head of the ring has come.
struct Progress {
  bool begun = false;
  bool lost = false;
  bool doubled_completion = false;
  bool hung = false;     // makes no progress until `resume_at`
  bool doubled = false;  // to be executed again
  uint64_t doubled_after = 0;
  uint64_t at = 0;            // bytes done
  uint64_t end = 0;           // bytes to do: less than length where torn
  uint64_t hang_at = kNever;  // hang before the byte at this offset
  uint64_t hang_for = 0;      // ns, or kNever
  uint64_t resume_at = 0;     // Now() or kNever
};

// An operation that hung when the channel was forced: the device still has
// it, with the resolution of its time.
struct Zombie {
  Operation operation;
  Progress progress;
  uint32_t epoch;
};

// On the device thread, which nobody could catch anything from: false without memory for it.
template <typename Container, typename Element>
bool TryPush(Container* container, Element&& element) {
  try {
    container->push_back(std::forward<Element>(element));
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

class Channel {
 public:
  Channel(uint32_t index, uint32_t depth)
      : index_(index), depth_(depth), mask_(depth - 1), operations_(depth), completions_(depth) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  uint32_t index() const { return index_; }
  uint32_t depth() const { return depth_; }

  // -- JavaScript thread --

  // Which attachments the rows name.
  Uses uses;
  PostResult Post(const AttachmentTable& table, const BatchColumns& batch, uint32_t first,
                  uint32_t count);
  ReapResult Reap(const CompletionColumns& out);
  uint32_t in_flight() const { return static_cast<uint32_t>(posted_local_ - reaped_); }
  // Whether something can be reaped.
  bool Reapable() const {
    return done_.load(std::memory_order_seq_cst) != reaped_ ||
           late_count_.load(std::memory_order_seq_cst) != 0;
  }
  // Whether work that is not done names it: in order, so that the last row which does tells.
  bool IsUsed(uint32_t id) const;
  State state() const { return state_.load(std::memory_order_acquire); }
  // True: is quiet already. The device answers a stop with kQuiet.
  bool Stop();
  uint32_t Force();
  // False: not stopped.
  bool Restart(const AttachmentTable& table);
  void Close();
  void Unstall();
  void SetSlow(uint64_t nanoseconds_per_chunk);
  // One kCompletion event when something can be reaped; true: there is one now.
  bool Arm();

  // -- either --

  // Events for the event loop.
  static constexpr uint32_t kCompletion = abi::software_event::kCompletion;
  static constexpr uint32_t kQuiet = abi::software_event::kQuiet;
  // Those since the last call.
  uint32_t TakeEvents() { return signals_.fetch_and(kArmed, std::memory_order_acq_rel) & ~kArmed; }
  // Whether a kCompletion is due, or will be when something completes.
  bool Expecting() const {
    return (signals_.load(std::memory_order_acquire) & (kArmed | kCompletion)) != 0;
  }

 private:
  friend class Device;
  friend class Engine;

  // Takes the mutex with the device giving way: it would win every race else.
  class Control {
   public:
    explicit Control(Channel& channel) : channel_(channel) {
      channel_.wanted_.fetch_add(1, std::memory_order_relaxed);
      channel_.mutex_.lock();
      channel_.wanted_.fetch_sub(1, std::memory_order_relaxed);
    }
    ~Control() { channel_.mutex_.unlock(); }
    Control(const Control&) = delete;
    Control& operator=(const Control&) = delete;

   private:
    Channel& channel_;
  };

  static constexpr uint32_t kArmed = 4;

  // Turns an arm, if there is one, into one kCompletion, in one step: there is
  // no moment in which the event loop sees neither. True: it did.
  bool Signal() {
    uint32_t signals = signals_.load(std::memory_order_seq_cst);
    while ((signals & kArmed) != 0) {
      if (signals_.compare_exchange_weak(signals, (signals & ~kArmed) | kCompletion,
                                         std::memory_order_seq_cst)) {
        return true;
      }
    }
    return false;
  }

  // Device thread: something was posted since it last looked.
  bool HasNews() const { return posted_.load(std::memory_order_seq_cst) != seen_posted_; }

  Operation& At(uint64_t position) { return operations_[position & mask_]; }
  const Operation& At(uint64_t position) const { return operations_[position & mask_]; }

  const uint32_t index_;
  const uint32_t depth_;
  const uint32_t mask_;
  std::vector<Operation> operations_;
  std::vector<Completion> completions_;

  // The JavaScript thread's.
  alignas(64) uint64_t posted_local_ = 0;
  uint64_t reaped_ = 0;
  // Written by the JavaScript thread, read by the device.
  alignas(64) std::atomic<uint64_t> posted_{0};
  std::atomic<State> state_{State::kRunning};
  std::atomic<uint32_t> wanted_{0};
  // Written by the device, read by the JavaScript thread.
  alignas(64) std::atomic<uint64_t> done_{0};
  std::atomic<uint32_t> late_count_{0};
  // Apart from `done_`, since Post looks at it: it seldom changes.
  alignas(64) std::atomic<uint32_t> signals_{0};  // kArmed and events

  // Guarded by the mutex.
  alignas(64) std::mutex mutex_;
  uint64_t seen_posted_ = 0;  // the device's own
  uint32_t epoch_ = 1;
  uint64_t slow_ = 0;           // ns for each chunk
  uint64_t next_chunk_at_ = 0;  // where slow
  Progress head_;
  std::vector<Zombie> zombies_;
  // COPY operations to be executed again: a deliberate fault.
  struct Again {
    Operation operation;
    uint64_t after;  // position of `done`, or kNever: when idle
  };
  std::vector<Again> again_;
  // Completions that own no place in the ring: of zombies, and doubled ones.
  std::deque<Completion> late_;
};

}  // namespace p2pdma::software
