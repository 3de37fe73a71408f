// One call each: ibv_post_send(3), ibv_post_recv(3), ibv_poll_cq(3).
#include <endian.h>
#include <errno.h>

#include <algorithm>
#include <string>

#include "columns.h"
#include "handle.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "taken.h"
#include "verbs/init.h"
#include "work_request.h"

namespace p2pdma::verbs {

namespace {

[[noreturn]] void ThrowDefect(Napi::Env env, const Defect& defect, uint32_t row) {
  throw CodedError(
      env, "ERR_INVALID_ARG_VALUE",
      std::string(defect.column) + " of row " + std::to_string(row) + " " + defect.what,
      defect.column);
}

struct Rows {
  uint32_t first;
  uint32_t count;
};

Rows RowsArg(const Napi::CallbackInfo& info, uint32_t capacity) {
  const uint32_t first = Uint32Arg(info, 2, "first", capacity);
  return {first, Uint32Arg(info, 3, "count", capacity - first)};
}

// What a post of a chain of `count` requests came to: how many are known to be
// taken. A full queue is no error, nor is one behind the first.
template <typename Request>
uint32_t Taken(Napi::Env env, const char* name, int returned, const Request* chain, uint32_t count,
               const Request* bad) {
  if (returned == 0) return count;
  const int error = Refusal(returned);
  const auto before = TakenBefore(chain, count, bad);
  if (before.value_or(0) == 0 && (error != ENOMEM || !before)) throw SystemError(env, error, name);
  return *before;
}

// verbsPostSend(qp, columns, first, count): how many were accepted. Throws for
// a bad row only where it is the first.
Napi::Value PostSend(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto pair = Use<QueuePair>(info[0], "qp");
  const SendColumns& columns = SendColumnsArg(info[1]);
  const Rows rows = RowsArg(info, columns.capacity);
  const uint32_t count = std::min(rows.count, pair->caps().max_send_wr);
  SendChain& chain = pair->chain;
  const SendChain::Use use(chain, count);
  Defect defect;
  for (uint32_t i = 0; i < count; ++i) {
    if (AddSend(columns, rows.first + i, *pair, &chain, &defect)) continue;
    if (i == 0) ThrowDefect(env, defect, rows.first);
    break;
  }
  uint32_t accepted = 0;
  if (ibv_send_wr* const first = chain.Finish()) {
    ibv_send_wr* bad = first;
    errno = 0;
    const int returned = ibv_post_send(pair->get(), first, &bad);
    accepted = Taken<ibv_send_wr>(env, "ibv_post_send", returned, first, chain.count(), bad);
  }
  return Napi::Number::New(env, accepted);
}

// Receives are put in in pieces, which stand on the stack.
constexpr uint32_t kPiece = 32;

template <typename Post>
Napi::Value PostReceives(const Napi::CallbackInfo& info, const char* name, const Post& post) {
  const Napi::Env env = info.Env();
  const ReceiveColumns& columns = ReceiveColumnsArg(info[1]);
  const Rows rows = RowsArg(info, columns.capacity);
  ibv_recv_wr requests[kPiece];
  ibv_sge ranges[kPiece];
  uint32_t accepted = 0;
  while (accepted < rows.count) {
    const uint32_t wanted = std::min(kPiece, rows.count - accepted);
    Defect defect;
    uint32_t built = 0;
    while (built < wanted && ReadReceive(columns, rows.first + accepted + built, &requests[built],
                                         &ranges[built], &defect)) {
      if (built != 0) requests[built - 1].next = &requests[built];
      ++built;
    }
    if (built == 0) {
      if (accepted == 0) ThrowDefect(env, defect, rows.first);
      break;
    }
    ibv_recv_wr* bad = requests;
    errno = 0;
    const int returned = post(requests, &bad);
    // What went in with an earlier piece stays in: then an error is the next call's to tell.
    if (returned != 0 && accepted != 0) {
      return Napi::Number::New(
          env, accepted + TakenBefore<ibv_recv_wr>(requests, built, bad).value_or(0));
    }
    const uint32_t taken = Taken<ibv_recv_wr>(env, name, returned, requests, built, bad);
    accepted += taken;
    if (taken < wanted) break;
  }
  return Napi::Number::New(env, accepted);
}

// verbsPostReceive(qp, columns, first, count)
Napi::Value PostReceive(const Napi::CallbackInfo& info) {
  const auto pair = Use<QueuePair>(info[0], "qp");
  if (pair->get()->srq != nullptr) {
    throw CodedError(info.Env(), "ERR_INVALID_STATE",
                     "The queue pair receives from a shared receive queue");
  }
  return PostReceives(info, "ibv_post_recv", [&](ibv_recv_wr* list, ibv_recv_wr** bad) {
    return ibv_post_recv(pair->get(), list, bad);
  });
}

// verbsPostSrqReceive(srq, columns, first, count)
Napi::Value PostSrqReceive(const Napi::CallbackInfo& info) {
  const auto srq = Use<SharedReceiveQueue>(info[0], "srq");
  return PostReceives(info, "ibv_post_srq_recv", [&](ibv_recv_wr* list, ibv_recv_wr** bad) {
    return ibv_post_srq_recv(srq->get(), list, bad);
  });
}

void PutCompletion(const CompletionColumns& columns, uint32_t row, const ibv_wc& wc) {
  columns.wr_id.Write(row, static_cast<double>(wc.wr_id));
  columns.status.Write(row, wc.status);
  columns.qp_number.Write(row, wc.qp_num);
  columns.vendor_error.Write(row, wc.vendor_err);
  // The rest is not valid in an error (ibv_poll_cq(3)).
  const bool good = wc.status == IBV_WC_SUCCESS;
  const unsigned flags = good ? wc.wc_flags : 0;
  uint32_t immediate = 0;
  if ((flags & IBV_WC_WITH_IMM) != 0) immediate = be32toh(wc.imm_data);
  if ((flags & IBV_WC_WITH_INV) != 0) immediate = wc.invalidated_rkey;
  columns.opcode.Write(row, good ? wc.opcode : 0);
  columns.byte_length.Write(row, good ? wc.byte_len : 0);
  columns.immediate.Write(row, immediate);
  columns.source_qp.Write(row, good ? wc.src_qp : 0);
  columns.flags.Write(row, flags);
}

// verbsPollCq(cq, columns, max): how many completions were put into the first rows
Napi::Value PollCq(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto queue = Use<CompletionQueue>(info[0], "cq");
  const CompletionColumns& columns = CompletionColumnsArg(info[1]);
  const uint32_t most = Uint32Arg(info, 2, "max", columns.capacity);
  ibv_wc completions[kPiece];
  uint32_t rows = 0;
  while (rows < most) {
    const uint32_t wanted = std::min(kPiece, most - rows);
    errno = 0;
    const int found = ibv_poll_cq(queue->get(), static_cast<int>(wanted), completions);
    if (found < 0) {
      if (rows != 0) break;
      throw SystemError(env, errno == 0 ? EIO : errno, "ibv_poll_cq");
    }
    const uint32_t count = std::min(static_cast<uint32_t>(found), wanted);
    for (uint32_t i = 0; i < count; ++i) PutCompletion(columns, rows++, completions[i]);
    if (count < wanted) break;
  }
  return Napi::Number::New(env, rows);
}

}  // namespace

void InitPost(Napi::Env, Napi::Object exports) {
  Export<PostSend>(exports, "verbsPostSend");
  Export<PostReceive>(exports, "verbsPostReceive");
  Export<PostSrqReceive>(exports, "verbsPostSrqReceive");
  Export<PollCq>(exports, "verbsPollCq");
}

}  // namespace p2pdma::verbs
