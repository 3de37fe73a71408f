// Work queues as JavaScript has them. What is called for each batch takes and
// returns its numbers in a small shared array, the doorbell.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "../handle.h"
#include "mapping.h"
#include "queue/table_args.h"
#include "queues.h"
#include "support/args.h"
#include "support/column_args.h"
#include "support/function.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

namespace work {
namespace {

constexpr uint32_t kMaxDepth = 1 << 14;

using namespace abi::work_bell;

struct JsQueues {
  // Null when closed.
  std::unique_ptr<Queues> core;
  BatchColumns batch;
  // Of the heart's, not of libibverbs'.
  p2pdma::CompletionColumns completions;
  Column<double> bell;

  uint32_t In(WorkBell at) const {
    uint64_t value;
    return Whole(bell.Read(at), &value) && value <= UINT32_MAX ? static_cast<uint32_t>(value) : 0;
  }
  void Out(WorkBell at, uint64_t value) const { bell.Write(at, static_cast<double>(value)); }
};

void Hand(const JsQueues& queues) {
  queues.Out(kError, static_cast<uint64_t>(queues.core->Hand()));
  queues.Out(kCredited, queues.core->credited);
  queues.Out(kGone, queues.core->gone);
}

// Says what was polled; false where there is something to judge first.
bool Tell(const JsQueues& queues, bool is_bad, const Bad& bad) {
  queues.Out(kPolled, queues.core->polled);
  queues.Out(kIsBad, is_bad ? 1 : 0);
  if (!is_bad) return true;
  queues.Out(kBadKind, bad.kind);
  queues.Out(kBadPosition, bad.position);
  queues.Out(kBadStatus, bad.status);
  return false;
}

// Takes what the queue pair has completed.
bool Poll(const JsQueues& queues) {
  Bad bad;
  const bool is_bad = queues.core->Poll(&bad);
  return Tell(queues, is_bad, bad);
}

// Longer would hold up the event loop too long.
constexpr uint32_t kMostMicroseconds = 10000;

void JsPost(const JsQueues& queues) {
  RowDefect defect = RowDefect::kNone;
  uint32_t accepted = 0;
  const uint32_t first = queues.In(kFirst);
  if (queues.core != nullptr && first <= queues.batch.capacity) {
    accepted = queues.core->Accept(queues.batch, first, queues.In(kCount), &defect);
    Hand(queues);
  }
  queues.Out(kAccepted, accepted);
  queues.Out(kDefect, defect);
}

void JsHand(const JsQueues& queues) {
  if (queues.core != nullptr) Hand(queues);
}

void JsPoll(const JsQueues& queues) {
  if (queues.core != nullptr) Poll(queues);
}

// Arms, then polls: what came before an event was asked for brings none.
void JsListen(const JsQueues& queues) {
  if (queues.core == nullptr) return;
  queues.Out(kError, static_cast<uint64_t>(queues.core->Arm(queues.In(kArrivalsOnly) != 0)));
  Poll(queues);
}

// As JsListen, and then, where nothing was there, waits for an event.
void JsWait(const JsQueues& queues) {
  JsListen(queues);
  uint32_t of = 0;
  if (queues.core != nullptr && queues.core->polled == 0 && queues.In(kError) == 0) {
    Bad bad;
    const bool is_bad =
        queues.core->Wait(std::min(queues.In(kMicroseconds), kMostMicroseconds), &bad, &of);
    Tell(queues, is_bad, bad);
  }
  queues.Out(kEventOf, of);
}

void JsReap(const JsQueues& queues) {
  uint32_t taken = 0;
  if (queues.core != nullptr && Poll(queues)) {
    taken = queues.core->Take(queues.completions, queues.In(kEpoch));
  }
  queues.Out(kTaken, taken);
}

// A row of one of the queues, by the kind of its request and its position.
struct RowArg {
  RowArg(const Napi::CallbackInfo& info, const JsQueues& queues)
      : position(UintArg(info, 1, "position")) {
    const bool receives = Uint32Arg(info, 0, "kind", WorkKind::kReceive) == WorkKind::kReceive;
    if (queues.core == nullptr) return;
    rows = receives ? &queues.core->receives : &queues.core->sends;
    is_there = rows->Has(position);
  }
  const Rows* rows = nullptr;
  const uint64_t position;
  bool is_there = false;
};

// Reads the columns of an object by their names, each of them once.
RowColumns RowsArg(const Napi::CallbackInfo& info, size_t at, const char* name, uint32_t depth) {
  if (!info[at].IsObject()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be rows", name);
  }
  const auto object = info[at].As<Napi::Object>();
  const auto wide = [&](const char* key) {
    return Column<double>(ColumnOf(object.Get(key), key, napi_float64_array, depth));
  };
  const auto word = [&](const char* key) {
    return Column<uint32_t>(ColumnOf(object.Get(key), key, napi_uint32_array, depth));
  };
  const auto byte = [&](const char* key) {
    return Column<uint8_t>(ColumnOf(object.Get(key), key, napi_uint8_array, depth));
  };
  RowColumns rows;
  rows.source_offset = wide("sourceOffset");
  rows.target_offset = wide("targetOffset");
  rows.length = wide("length");
  rows.operand = wide("operand");
  rows.cookie = wide("cookie");
  rows.result = wide("result");
  rows.message = wide("message");
  rows.source = word("source");
  rows.target = word("target");
  rows.op = byte("op");
  rows.stage = byte("stage");
  rows.status = byte("status");
  return rows;
}

// useTable(capacity, ids, states, access, iovas, sizes, keys, queues, last of sends, of receives)
void UseTable(const Napi::CallbackInfo& info, const JsQueues& queues) {
  RegionColumns table;
  static_cast<queue::TableColumns&>(table) = queue::TableArgs(info);
  const auto word = [&](size_t at, const char* name, size_t length) {
    return Column<uint32_t>(ColumnArg(info, at, name, napi_uint32_array, length));
  };
  table.keys = word(6, "keys", table.capacity);
  table.queues = word(7, "queues", table.capacity);
  const Column<uint32_t> of_sends = word(8, "last", size_t{2} * table.capacity);
  const Column<uint32_t> of_receives = word(9, "last", size_t{2} * table.capacity);
  if (queues.core == nullptr) return;
  Queues& core = *queues.core;
  core.table = table;
  core.send_uses.capacity = core.receive_uses.capacity = table.capacity;
  core.send_uses.last = of_sends;
  core.receive_uses.last = of_receives;
}

// verbsOpenWork(qp, cq, depth, maxMessage, scratch, scratchIova, scratchLkey, doorbell, counts,
//               sends, receives, untold)
Napi::Value Open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto pair = Use<QueuePair>(info[0], "qp");
  auto completions = Use<CompletionQueue>(info[1], "cq");
  const uint32_t depth = Uint32Arg(info, 2, "depth", kMaxDepth);
  if (depth == 0 || (depth & (depth - 1)) != 0) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "depth must be a power of two", "depth");
  }
  const uint64_t max_message = UintArg(info, 3, "maxMessage", uint64_t{1} << 31);
  Scratch scratch{UnwrapMapping(info[4]), UintArg(info, 5, "scratchIova"),
                  Uint32Arg(info, 6, "scratchLkey")};
  if (!scratch.memory->Contains(0, uint64_t{depth} * 8) || scratch.memory->device) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "the scratch memory is too short", "scratch");
  }
  const auto queues = std::make_shared<JsQueues>();
  queues->bell = Column<double>(ColumnArg(info, 7, "doorbell", napi_float64_array, kLength));
  const Column<double> counts(
      ColumnArg(info, 8, "counts", napi_float64_array, abi::work_count::kLength));
  const Rows sends(depth, RowsArg(info, 9, "sends", depth), queues->bell, kSends);
  const Rows receives(depth, RowsArg(info, 10, "receives", depth), queues->bell, kReceives);
  queues->core = std::make_unique<Queues>(std::move(pair), std::move(completions), max_message,
                                          sends, receives, Counts(counts), std::move(scratch));
  const uint32_t room = 2 * depth;
  const Column<uint32_t> untold(ColumnArg(info, 11, "untold", napi_uint32_array, 1 + room));
  queues->core->send_uses.untold = queues->core->receive_uses.untold = {untold, room};
  const Napi::Object object = Napi::Object::New(env);
  SetFast<JsPost>(env, object, "post", queues);
  SetFast<JsHand>(env, object, "hand", queues);
  SetFast<JsPoll>(env, object, "poll", queues);
  SetFast<JsListen>(env, object, "listen", queues);
  SetFast<JsWait>(env, object, "wait", queues);
  SetFast<JsReap>(env, object, "reap", queues);
  Set(object, "useBatch", [queues](const Napi::CallbackInfo& i) { queues->batch = BatchArgs(i); });
  Set(object, "useCompletions",
      [queues](const Napi::CallbackInfo& i) { queues->completions = CompletionArgs(i); });
  Set(object, "useTable", [queues](const Napi::CallbackInfo& i) { UseTable(i, *queues); });
  Set(object, "sendVoids", [queues](const Napi::CallbackInfo& i) {
    const uint32_t count = Uint32Arg(i, 0, "count", kMaxDepth);
    const int error = queues->core == nullptr ? 0 : queues->core->SendVoids(count);
    queues->Out(kError, static_cast<uint64_t>(error));
  });
  // (kind, position, status, result)
  Set(object, "finish", [queues](const Napi::CallbackInfo& i) {
    const RowArg row(i, *queues);
    const uint32_t status = Uint32Arg(i, 2, "status", UINT8_MAX);
    const uint32_t result = Uint32Arg(i, 3, "result");
    if (row.is_there) row.rows->Finish(row.position, static_cast<uint8_t>(status), result);
  });
  // (kind, position)
  Set(object, "takeBack", [queues](const Napi::CallbackInfo& i) {
    const RowArg row(i, *queues);
    if (row.is_there) row.rows->TakeBack(row.position);
  });
  Set(object, "close", [queues](const Napi::CallbackInfo&) { queues->core.reset(); });
  return object;
}

}  // namespace
}  // namespace work

void InitWork(Napi::Env, Napi::Object exports) { Export<work::Open>(exports, "verbsOpenWork"); }

}  // namespace p2pdma::verbs
