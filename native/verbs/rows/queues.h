// The two work queues of a queue pair: rows in, work requests out; completions
// in, rows done. One call for a batch each way, and no allocation in it. What a
// channel does about errors is in lib/engines/verbs/backend.ts.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "../objects.h"
#include "abi.h"
#include "regions.h"
#include "rows.h"
#include "support/columns.h"
#include "support/mapped_range.h"

namespace p2pdma::verbs::work {

using abi::work_kind::WorkKind;

// The immediate of a message that only uses up a receive.
constexpr uint32_t kVoid = UINT32_MAX;

// What the ends of a queue pair know of each other.
struct Counts {
  Counts() = default;
  explicit Counts(Column<double> column);
  Counter is_ready;
  Counter is_paused_by_peer;
  // Counts the times that it was connected.
  Counter life;
  // Of this life: messages handed over (empty ones too), and what the peer has receives for.
  Counter sent;
  Counter credit;
  // Of this life: receives handed over, and messages that came.
  Counter posted;
  Counter received;
  // Empty messages handed over that are not done.
  Counter voids;
  // This queue pair's number within the engine.
  Counter number;
  // Completions of what was never handed over, or is done: dropped.
  Counter unmatched;
};

// A completion that was none of a success.
struct Bad {
  uint32_t kind = 0;
  uint64_t position = 0;
  uint32_t status = 0;
};

// Where atomics put the value before: 8 bytes for each row.
struct Scratch {
  std::shared_ptr<MappedRange> memory;
  uint64_t iova = 0;
  uint32_t lkey = 0;
};

class Queues {
 public:
  // Of requests that were handed over.
  struct Handed {
    uint32_t surely = 0;
    uint32_t perhaps = 0;
  };

  Queues(std::shared_ptr<QueuePair> pair, std::shared_ptr<CompletionQueue> completions,
         uint64_t max_message, Rows sends, Rows receives, Counts counts, Scratch scratch);
  // On the event loop, and perhaps in a finalizer: what nobody has closed goes to a thread.
  ~Queues();

  RegionColumns table;
  // Which attachments rows name, by queue; they have room for those of the table.
  Uses send_uses;
  Uses receive_uses;
  const Rows sends;
  const Rows receives;

  // Takes rows of the batch for as long as they are good, and there is room.
  uint32_t Accept(const BatchColumns& batch, uint32_t first, uint32_t count, RowDefect* defect);
  // Hands over what may be. 0, or an errno: then the queue pair has to be reset.
  int Hand();
  // Rows that were finished by Hand() without the device: what they named is gone.
  uint32_t gone = 0;
  // Receives that Hand() has handed over.
  uint32_t credited = 0;
  // Hands over `count` empty messages, which use up receives of the peer's. 0 or an errno.
  int SendVoids(uint32_t count);

  // Takes what the queue pair has completed. True: `bad` has one that is the
  // caller's to judge, and there may be more.
  bool Poll(Bad* bad);
  uint32_t polled = 0;
  // The next completion that comes is an event, or the next message; those before
  // it are to be polled. 0 or an errno.
  int Arm(bool arrivals_only);
  // Waits for an event of its completion channel's, then polls as Poll() does.
  // `of`: the number of the queue whose event has been taken, this one or another; 0: none came.
  bool Wait(uint32_t microseconds, Bad* bad, uint32_t* of);
  // Gives back rows that are done, in order; returns how many.
  uint32_t Take(const p2pdma::CompletionColumns& out, uint32_t epoch) const;

 private:
  bool open() const { return pair_->open() && completions_->open(); }
  uint64_t Id(WorkKind kind, uint64_t position) const;
  int HandReceives();
  int HandSends();
  bool IsGone(uint32_t slot);
  void Fill(uint32_t slot, ibv_send_wr* request, ibv_sge* range);
  // Posts the first `count` of `requests_`. 0 or an errno.
  int PostChain(uint32_t count, Handed* handed);
  // Whether a completion of this life can be of it.
  bool IsExpected(uint32_t kind, uint64_t position) const;
  void Complete(const ibv_wc& wc, uint64_t position);
  void Sent(uint64_t position);
  void Arrived(const ibv_wc& wc, uint64_t position);
  // Rows before `position` that the queue pair has: a reliable connection
  // completes in order, and what fails is told of, asked for or not. Once
  // something has failed all that follows is flushed, and says so.
  void SentBefore(uint64_t position);
  uint32_t TakeFrom(const Rows& rows, const p2pdma::CompletionColumns& out, uint32_t from,
                    uint32_t epoch) const;

  std::shared_ptr<QueuePair> pair_;
  std::shared_ptr<CompletionQueue> completions_;
  const uint64_t max_message_;
  const Counts counts_;
  const Scratch scratch_;
  // Of the call under way.
  RegionReader sources_;
  RegionReader targets_;
  std::vector<ibv_send_wr> requests_;
  std::vector<ibv_recv_wr> receive_requests_;
  std::vector<ibv_sge> ranges_;
  std::vector<uint64_t> positions_;
  std::vector<ibv_wc> found_;
  // The life in which a send has failed, or 0.
  uint64_t failed_life_ = 0;
  uint32_t found_count_ = 0;
  uint32_t found_next_ = 0;
};

}  // namespace p2pdma::verbs::work
