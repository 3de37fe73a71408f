#include "queues.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "../taken.h"

namespace p2pdma::verbs::work {

namespace {

using namespace abi::work_count;
using abi::status::kNotMapped;
using abi::status::kOk;

// Requests in one chain at most.
constexpr uint32_t kPiece = 256;
// One in so many, and one in so many bytes, is signaled: completions cost more
// than small requests do, and rows of large ones are wanted back soon.
constexpr uint32_t kSignalRows = 16;
constexpr uint64_t kSignalBytes = 32 << 10;

// A request's id: two bits of the kind, 20 of the life, and the position.
constexpr uint32_t kLifeBits = 20;
constexpr uint64_t kLives = uint64_t{1} << kLifeBits;
constexpr uint32_t kPositionBits = 64 - 2 - kLifeBits;
constexpr uint64_t kPositions = uint64_t{1} << kPositionBits;

// Of a chain that was refused: how many the queue pair has for sure, and how many it
// may have. Where the provider does not say, it may have all: what is to be done
// once is settled with the peer, as after every error.
template <typename Request>
Queues::Handed HandedOf(const Request* chain, uint32_t count, const Request* bad) {
  const auto before = TakenBefore(chain, count, bad);
  return before ? Queues::Handed{*before, *before} : Queues::Handed{0, count};
}

uint64_t Offset(Column<double> column, uint32_t slot) {
  uint64_t value;
  Whole(column.Read(slot), &value);
  return value;
}

constexpr uint32_t kOps =
    queue::Bit(kCopy) | queue::Bit(kFetchAdd) | queue::Bit(kSend) | queue::Bit(kReceive);

// Whose a row's two sides may be on the queue pair `own`.
RowDefect DefectOfSides(const queue::Row<Region>& row, uint32_t own) {
  const uint32_t source = row.source == nullptr ? 0 : row.source->queue;
  const uint32_t target = row.target == nullptr ? 0 : row.target->queue;
  if (source != 0 && source != own) return RowDefect::kSourceQueue;
  if (target != 0 && target != own) return RowDefect::kTargetQueue;
  if (row.op == kSend) return source == 0 ? RowDefect::kNone : RowDefect::kSourceTheirs;
  if (row.op == kReceive) return target == 0 ? RowDefect::kNone : RowDefect::kTargetTheirs;
  if (row.op == kFetchAdd) return target != 0 ? RowDefect::kNone : RowDefect::kTargetOurs;
  return (source == 0) != (target == 0) ? RowDefect::kNone : RowDefect::kRemotes;
}

}  // namespace

Counts::Counts(Column<double> column)
    : is_ready(column, kIsReady),
      is_paused_by_peer(column, kIsPausedByPeer),
      life(column, kLife),
      sent(column, kSent),
      credit(column, kCredit),
      posted(column, kPosted),
      received(column, kReceived),
      voids(column, kVoids),
      number(column, kNumber),
      unmatched(column, kUnmatched) {}

Queues::Queues(std::shared_ptr<QueuePair> pair, std::shared_ptr<CompletionQueue> completions,
               uint64_t max_message, Rows sends, Rows receives, Counts counts, Scratch scratch)
    : sends(sends),
      receives(receives),
      pair_(std::move(pair)),
      completions_(std::move(completions)),
      max_message_(max_message),
      counts_(counts),
      scratch_(std::move(scratch)),
      sources_(table),
      targets_(table) {
  const uint32_t piece = std::min(sends.depth(), kPiece);
  requests_.resize(piece);
  receive_requests_.resize(piece);
  ranges_.resize(piece);
  positions_.resize(piece);
  found_.resize(std::min<uint32_t>(64, 2 * piece));
}

Queues::~Queues() {
  if (pair_->open()) Reap(std::move(pair_));
  if (completions_->open()) Reap(std::move(completions_));
}

uint32_t Queues::Accept(const BatchColumns& batch, uint32_t first, uint32_t count,
                        RowDefect* defect) {
  sources_.Begin();
  targets_.Begin();
  queue::Checker checker(batch, sources_, targets_, {kOps, 0, max_message_});
  const auto& row = checker.row;
  const auto own = static_cast<uint32_t>(counts_.number.get());
  const uint32_t used = sends.size() + receives.size();
  count =
      std::min({count, batch.capacity - first, used < sends.depth() ? sends.depth() - used : 0});
  Noting noting_sends(send_uses);
  Noting noting_receives(receive_uses);
  uint32_t accepted = 0;
  for (; accepted < count && checker.Read(first + accepted); ++accepted) {
    checker.defect = DefectOfSides(row, own);
    if (checker.defect != RowDefect::kNone) break;
    const Rows& rows = row.op == kReceive ? receives : sends;
    const RowColumns& to = rows.columns;
    Noting& noting = row.op == kReceive ? noting_receives : noting_sends;
    const uint64_t position = rows.tail.get();
    const uint32_t slot = rows.Slot(position);
    if (!noting.Note(row, slot)) break;
    to.op.Write(slot, row.op);
    to.stage.Write(slot, kHeld);
    to.source.Write(slot, row.source_id);
    to.target.Write(slot, row.target_id);
    to.source_offset.Write(slot, static_cast<double>(row.source_offset));
    to.target_offset.Write(slot, static_cast<double>(row.target_offset));
    to.length.Write(slot, static_cast<double>(row.length));
    to.operand.Write(slot, static_cast<double>(row.operand));
    to.cookie.Write(slot, batch.cookie.Read(first + accepted));
    rows.tail.set(position + 1);
  }
  *defect = checker.defect;
  return accepted;
}

uint64_t Queues::Id(WorkKind kind, uint64_t position) const {
  return kind | (counts_.life.get() % kLives) << 2 | position % kPositions << (2 + kLifeBits);
}

int Queues::Hand() {
  gone = 0;
  credited = 0;
  if (!open() || counts_.is_ready.get() == 0) return 0;
  sources_.Begin();
  targets_.Begin();
  const int error = HandReceives();
  if (error != 0 || counts_.is_paused_by_peer.get() != 0) return error;
  return HandSends();
}

int Queues::HandReceives() {
  uint64_t position = receives.next.get();
  const uint64_t tail = receives.End();
  if (position >= tail) return 0;
  int error = 0;
  while (receives.Has(position) && error == 0) {
    uint32_t count = 0;
    for (; position < tail && count < receive_requests_.size(); ++position) {
      const uint32_t slot = receives.Slot(position);
      if (receives.stage(position) != kHeld) continue;
      const RowColumns& row = receives.columns;
      const Region& region = targets_.Find(row.target.Read(slot));
      if (region.state == MappingState::kNone) {
        receives.Finish(position, kNotMapped, 0);
        ++gone;
        continue;
      }
      ibv_sge& range = ranges_[count];
      range = {region.iova + Offset(row.target_offset, slot),
               static_cast<uint32_t>(Offset(row.length, slot)), region.key};
      ibv_recv_wr& request = receive_requests_[count];
      request = {Id(WorkKind::kReceive, position), nullptr, &range, range.length == 0 ? 0 : 1};
      if (count != 0) receive_requests_[count - 1].next = &request;
      positions_[count++] = position;
    }
    Handed handed = {count, count};
    if (count != 0) {
      ibv_recv_wr* bad = nullptr;
      errno = 0;
      error = Refusal(ibv_post_recv(pair_->get(), receive_requests_.data(), &bad));
      if (error != 0) handed = HandedOf<ibv_recv_wr>(receive_requests_.data(), count, bad);
    }
    for (uint32_t i = 0; i < handed.perhaps; ++i) receives.MarkHanded(positions_[i]);
    credited += handed.surely;
    receives.next.set(handed.perhaps < count ? positions_[handed.perhaps] : position);
  }
  counts_.posted.add(credited);
  return error;
}

bool Queues::IsGone(uint32_t slot) {
  const uint8_t op = sends.columns.op.Read(slot);
  return (NamesSource(op) &&
          sources_.Find(sends.columns.source.Read(slot)).state == MappingState::kNone) ||
         (NamesTarget(op) &&
          targets_.Find(sends.columns.target.Read(slot)).state == MappingState::kNone);
}

void Queues::Fill(uint32_t slot, ibv_send_wr* request, ibv_sge* range) {
  const RowColumns& row = sends.columns;
  const uint8_t op = row.op.Read(slot);
  const Region& source = sources_.Find(row.source.Read(slot));
  const Region& target = targets_.Find(row.target.Read(slot));
  const uint64_t from = source.iova + Offset(row.source_offset, slot);
  const uint64_t to = target.iova + Offset(row.target_offset, slot);
  range->length = static_cast<uint32_t>(Offset(row.length, slot));
  if (op == kFetchAdd) {
    request->opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
    range->addr = scratch_.iova + uint64_t{slot} * 8;
    range->lkey = scratch_.lkey;
    request->wr.atomic.remote_addr = to;
    request->wr.atomic.rkey = target.key;
    request->wr.atomic.compare_add = Offset(row.operand, slot);
  } else if (op == kSend) {
    request->opcode = IBV_WR_SEND;
    // For a peer that waits for what arrives only.
    request->send_flags = IBV_SEND_SOLICITED;
    range->addr = from;
    range->lkey = source.key;
  } else {
    const bool reads = source.queue != 0;
    request->opcode = reads ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
    range->addr = reads ? to : from;
    range->lkey = reads ? target.key : source.key;
    request->wr.rdma.remote_addr = reads ? from : to;
    request->wr.rdma.rkey = reads ? source.key : target.key;
  }
  // To some devices a length of 0 in a range means 2^31.
  request->num_sge = range->length == 0 ? 0 : 1;
}

int Queues::HandSends() {
  uint64_t position = sends.next.get();
  const uint64_t tail = sends.End();
  const uint64_t credit = counts_.credit.get();
  bool blocked = false;
  int error = 0;
  while (sends.Has(position) && !blocked && error == 0) {
    uint32_t count = 0;
    uint64_t messages = counts_.sent.get();
    uint32_t unsignaled = 0;
    uint64_t bytes = 0;
    for (; position < tail && count < requests_.size(); ++position) {
      const uint32_t slot = sends.Slot(position);
      if (sends.stage(position) != kHeld) continue;
      if (IsGone(slot)) {
        sends.Finish(position, kNotMapped, 0);
        ++gone;
        continue;
      }
      if (sends.columns.op.Read(slot) == kSend) {
        // A drain must not wait for the peer's receives.
        blocked = messages >= credit;
        if (blocked) break;
        sends.columns.message.Write(slot, static_cast<double>(messages++));
      }
      ibv_send_wr& request = requests_[count];
      request = {};
      ranges_[count] = {};
      request.wr_id = Id(WorkKind::kSend, position);
      request.sg_list = &ranges_[count];
      Fill(slot, &request, &ranges_[count]);
      bytes += ranges_[count].length;
      if (++unsignaled >= kSignalRows || bytes >= kSignalBytes) {
        request.send_flags |= IBV_SEND_SIGNALED;
        unsignaled = 0;
        bytes = 0;
      }
      if (count != 0) requests_[count - 1].next = &request;
      positions_[count++] = position;
    }
    Handed handed = {count, count};
    if (count != 0) {
      // Or what the last ones came to would never be told.
      requests_[count - 1].send_flags |= IBV_SEND_SIGNALED;
      error = PostChain(count, &handed);
    }
    for (uint32_t i = 0; i < handed.perhaps; ++i) {
      sends.MarkHanded(positions_[i]);
      if (sends.columns.op.Read(sends.Slot(positions_[i])) == kSend) counts_.sent.add(1);
    }
    sends.next.set(handed.perhaps < count ? positions_[handed.perhaps] : position);
  }
  return error;
}

int Queues::PostChain(uint32_t count, Handed* handed) {
  *handed = {count, count};
  ibv_send_wr* bad = nullptr;
  errno = 0;
  const int error = Refusal(ibv_post_send(pair_->get(), requests_.data(), &bad));
  if (error != 0) *handed = HandedOf<ibv_send_wr>(requests_.data(), count, bad);
  return error;
}

int Queues::SendVoids(uint32_t count) {
  if (!open()) return 0;
  while (count > 0) {
    const uint32_t piece = std::min<uint32_t>(count, static_cast<uint32_t>(requests_.size()));
    for (uint32_t i = 0; i < piece; ++i) {
      requests_[i] = {};
      requests_[i].wr_id = Id(WorkKind::kVoid, i);
      requests_[i].opcode = IBV_WR_SEND_WITH_IMM;
      requests_[i].send_flags = IBV_SEND_SIGNALED;
      requests_[i].imm_data = htobe32(kVoid);
      if (i != 0) requests_[i - 1].next = &requests_[i];
    }
    Handed handed;
    const int error = PostChain(piece, &handed);
    counts_.voids.add(handed.perhaps);
    counts_.sent.add(handed.perhaps);
    if (error != 0) return error;
    count -= piece;
  }
  return 0;
}

bool Queues::Poll(Bad* bad) {
  polled = 0;
  if (!open()) return false;
  // More than there can be outstanding: an end, even if they come as fast as they are taken.
  const uint32_t most = 4 * sends.depth();
  const auto room = static_cast<uint32_t>(found_.size());
  bool may_be_more = true;
  for (;;) {
    if (found_next_ == found_count_) {
      const int found =
          may_be_more && polled < most
              ? ibv_poll_cq(completions_->get(), static_cast<int>(room), found_.data())
              : 0;
      found_next_ = 0;
      found_count_ = found > 0 ? std::min(static_cast<uint32_t>(found), room) : 0;
      if (found_count_ == 0) return false;
      // Fewer than asked for: it was empty behind them.
      may_be_more = found_count_ == room;
    }
    const ibv_wc& wc = found_[found_next_++];
    ++polled;
    // Of an earlier life: flushed, and settled since.
    const uint64_t age = (counts_.life.get() - (wc.wr_id >> 2)) % kLives;
    const uint32_t kind = wc.wr_id & 3;
    if (age != 0 && age < kLives / 2 && kind <= WorkKind::kVoid) continue;
    const Rows& rows = kind == WorkKind::kReceive ? receives : sends;
    // Positions in ids are cut off above.
    const uint64_t head = rows.head.get();
    const uint64_t position = head + (((wc.wr_id >> (2 + kLifeBits)) - head) & (kPositions - 1));
    if (age != 0 || !IsExpected(kind, position)) {
      counts_.unmatched.add(1);
      continue;
    }
    if (kind == WorkKind::kVoid) {
      counts_.voids.drop();
    } else if (wc.status == IBV_WC_SUCCESS) {
      Complete(wc, position);
    } else if (kind == WorkKind::kSend) {
      SentBefore(position);
    }
    if (wc.status == IBV_WC_SUCCESS) continue;
    if (kind == WorkKind::kSend) failed_life_ = counts_.life.get();
    *bad = {kind, position, static_cast<uint32_t>(wc.status)};
    return true;
  }
}

bool Queues::IsExpected(uint32_t kind, uint64_t position) const {
  if (kind == WorkKind::kVoid) return counts_.voids.get() != 0;
  if (kind != WorkKind::kSend && kind != WorkKind::kReceive) return false;
  const Rows& rows = kind == WorkKind::kReceive ? receives : sends;
  return rows.Has(position) && rows.stage(position) == kHanded;
}

int Queues::Arm(bool arrivals_only) {
  if (!open()) return 0;
  errno = 0;
  return Refusal(ibv_req_notify_cq(completions_->get(), arrivals_only ? 1 : 0));
}

bool Queues::Wait(uint32_t microseconds, Bad* bad, uint32_t* of) {
  *of = 0;
  polled = 0;
  ibv_comp_channel* const channel = open() ? completions_->get()->channel : nullptr;
  if (channel == nullptr) return false;
  pollfd ready = {channel->fd, POLLIN, 0};
  const timespec most = {0, static_cast<long>(microseconds) * 1000};
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  // It does not block: see CreateChannel.
  if (ppoll(&ready, 1, &most, nullptr) <= 0 || ibv.get_cq_event(channel, &cq, &context) != 0) {
    return false;
  }
  ibv.ack_cq_events(cq, 1);
  *of = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(context));
  return Poll(bad);
}

void Queues::Complete(const ibv_wc& wc, uint64_t position) {
  if ((wc.wr_id & 3) == WorkKind::kReceive) return Arrived(wc, position);
  SentBefore(position);
  Sent(position);
}

void Queues::SentBefore(uint64_t position) {
  if (failed_life_ == counts_.life.get()) return;
  uint64_t at = std::max(sends.done.get(), sends.head.get());
  for (; at < position; ++at) {
    if (sends.stage(at) == kHanded) Sent(at);
  }
  sends.done.set(at);
}

void Queues::Sent(uint64_t position) {
  if (sends.stage(position) != kHanded) return;
  const uint32_t slot = sends.Slot(position);
  if (sends.columns.op.Read(slot) != kFetchAdd) {
    return sends.Finish(position, kOk, sends.columns.length.Read(slot));
  }
  uint64_t before = 0;
  if (!scratch_.memory->retired) {
    before = reinterpret_cast<const volatile uint64_t*>(scratch_.memory->data)[slot];
  }
  sends.Finish(position, kOk, static_cast<double>(before));
}

void Queues::Arrived(const ibv_wc& wc, uint64_t position) {
  counts_.received.add(1);
  if ((wc.wc_flags & IBV_WC_WITH_IMM) != 0 && be32toh(wc.imm_data) == kVoid) {
    receives.TakeBack(position);
  } else {
    const uint64_t length = Offset(receives.columns.length, receives.Slot(position));
    receives.Finish(position, kOk, static_cast<double>(std::min<uint64_t>(wc.byte_len, length)));
  }
}

uint32_t Queues::Take(const p2pdma::CompletionColumns& out, uint32_t epoch) const {
  const uint32_t taken = TakeFrom(sends, out, 0, epoch);
  return TakeFrom(receives, out, taken, epoch);
}

uint32_t Queues::TakeFrom(const Rows& rows, const p2pdma::CompletionColumns& out, uint32_t from,
                          uint32_t epoch) const {
  uint32_t count = from;
  uint64_t position = rows.head.get();
  const uint64_t end = rows.End();
  for (; count < out.capacity && position < end && rows.stage(position) == kDone; ++position) {
    const uint32_t slot = rows.Slot(position);
    out.cookie.Write(count, rows.columns.cookie.Read(slot));
    out.result.Write(count, rows.columns.result.Read(slot));
    out.status.Write(count, rows.columns.status.Read(slot));
    out.epoch.Write(count, epoch);
    ++count;
  }
  rows.head.set(position);
  if (rows.next.get() < position) rows.next.set(position);
  return count;
}

}  // namespace p2pdma::verbs::work
