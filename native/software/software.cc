// The software engine as JavaScript has it. Plain objects whose functions own
// the native side: nothing is unwrapped from `this`. Two of them, post() and
// reap(), are called for each batch and take and return their numbers in a
// small shared array, the doorbell.
#include "software.h"

#include <memory>
#include <string>
#include <utility>

#include "../abi.h"
#include "../mapping.h"
#include "../support/args.h"
#include "../support/column_args.h"
#include "../support/error.h"
#include "../support/function.h"
#include "bench_loop.h"
#include "bench_pause.h"
#include "host.h"

namespace p2pdma {

namespace software {
namespace {

using ChannelPtr = std::shared_ptr<HostChannel>;
using HostPtr = std::shared_ptr<Host>;

using namespace abi::software_bell;

void Post(HostChannel& channel) {
  if (channel.closed()) return;
  uint32_t* const bell = channel.doorbell;
  const PostResult result =
      channel.host().engine().Post(channel.core(), channel.batch, bell[kFirst], bell[kCount]);
  bell[kAccepted] = result.accepted;
  bell[kDefect] = result.defect;
  bell[kInFlight] = channel.core().in_flight();
  channel.UpdateHold();
}

void Reap(HostChannel& channel) {
  if (channel.closed()) return;
  uint32_t* const bell = channel.doorbell;
  const ReapResult result = channel.core().Reap(channel.completions);
  bell[kReaped] = result.rows;
  bell[kStale] = result.stale;
  bell[kInFlight] = channel.core().in_flight();
  channel.UpdateHold();
}

Channel& OpenCore(const Napi::CallbackInfo& info, const ChannelPtr& channel) {
  if (channel->closed()) throw CodedError(info.Env(), "ERR_CLOSED", "The channel is closed");
  return channel->core();
}

Engine& OpenEngine(const Napi::CallbackInfo& info, const HostPtr& host) {
  if (host->closed()) throw CodedError(info.Env(), "ERR_CLOSED", "The engine is closed");
  return host->engine();
}

// What JavaScript has of it.
Napi::Object Describe(Napi::Env env, const ChannelPtr& channel) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("index", Napi::Number::New(env, channel->core().index()));
  SetFast<Post>(env, object, "post", channel);
  SetFast<Reap>(env, object, "reap", channel);
  Set(object, "useBatch",
      [channel](const Napi::CallbackInfo& i) { channel->batch = BatchArgs(i); });
  Set(object, "useCompletions",
      [channel](const Napi::CallbackInfo& i) { channel->completions = CompletionArgs(i); });
  // (capacity, last)
  Set(object, "useUses", [channel](const Napi::CallbackInfo& i) {
    const uint32_t capacity = Uint32Arg(i, 0, "capacity");
    const Column<uint32_t> last(ColumnArg(i, 1, "last", napi_uint32_array, size_t{2} * capacity));
    Uses& uses = OpenCore(i, channel).uses;
    uses.capacity = capacity;
    uses.last = last;
  });
  Set(object, "arm", [channel](const Napi::CallbackInfo& i) {
    Channel& core = OpenCore(i, channel);
    channel->host().engine().Arm(core);
    channel->UpdateHold();
  });
  Set(object, "uses", [channel](const Napi::CallbackInfo& i) -> Napi::Value {
    const uint32_t id = Uint32Arg(i, 0, "id");
    return Napi::Boolean::New(i.Env(), !channel->closed() && channel->core().IsUsed(id));
  });
  Set(object, "stop", [channel](const Napi::CallbackInfo& i) -> Napi::Value {
    const bool quiet = channel->host().engine().Stop(OpenCore(i, channel));
    channel->stop_pending = !quiet;
    channel->UpdateHold();
    return Napi::Boolean::New(i.Env(), quiet);
  });
  Set(object, "force", [channel](const Napi::CallbackInfo& i) -> Napi::Value {
    const uint32_t epoch = OpenCore(i, channel).Force();
    channel->stop_pending = false;
    channel->UpdateHold();
    return Napi::Number::New(i.Env(), epoch);
  });
  Set(object, "restart", [channel](const Napi::CallbackInfo& i) -> Napi::Value {
    return Napi::Boolean::New(i.Env(), channel->host().engine().Restart(OpenCore(i, channel)));
  });
  Set(object, "slow", [channel](const Napi::CallbackInfo& i) {
    OpenCore(i, channel).SetSlow(UintArg(i, 0, "nanoseconds"));
  });
  Set(object, "unstall", [channel](const Napi::CallbackInfo& i) {
    channel->host().engine().Unstall(&OpenCore(i, channel));
  });
  Set(object, "bench", [channel](const Napi::CallbackInfo& i) -> Napi::Value {
    Channel& core = OpenCore(i, channel);
    const double ns =
        BenchLoop(channel->host().engine(), core, channel->batch, channel->completions,
                  {Uint32Arg(i, 0, "operations"), Uint32Arg(i, 1, "batch"),
                   Uint32Arg(i, 2, "source"), Uint32Arg(i, 3, "target")});
    return Napi::Number::New(i.Env(), ns);
  });
  Set(object, "benchPause", [channel](const Napi::CallbackInfo& i) -> Napi::Value {
    Channel& core = OpenCore(i, channel);
    PauseSplit split;
    if (!BenchPause(channel->host().engine(), core, Uint32Arg(i, 0, "id"), UnwrapMapping(i[1]),
                    &split)) {
      return i.Env().Null();
    }
    const Napi::Object told = Napi::Object::New(i.Env());
    told.Set("stop", split.stop);
    told.Set("unmap", split.unmap);
    told.Set("copy", split.copy);
    told.Set("map", split.map);
    told.Set("restart", split.restart);
    told.Set("cpu", split.cpu);
    return told;
  });
  Set(object, "close", [channel](const Napi::CallbackInfo&) { channel->Close(); });
  return object;
}

// openChannel(depth, owner, doorbell, untold)
Napi::Value OpenChannel(const Napi::CallbackInfo& info, const HostPtr& host) {
  const Napi::Env env = info.Env();
  OpenEngine(info, host);
  const uint32_t depth = Uint32Arg(info, 0, "depth", abi::kSoftwareMaxDepth);
  if (depth == 0 || (depth & (depth - 1)) != 0) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "depth must be a power of two", "depth");
  }
  if (!info[1].IsObject()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "owner must be an object", "owner");
  }
  auto* const bell =
      static_cast<uint32_t*>(ColumnArg(info, 2, "doorbell", napi_uint32_array, kLength));
  const uint32_t room = 2 * depth;
  const Column<uint32_t> untold(ColumnArg(info, 3, "untold", napi_uint32_array, 1 + room));
  const auto channel = std::make_shared<HostChannel>(host, depth, info[1].As<Napi::Object>(), bell);
  channel->core().uses.untold = {untold, room};
  try {
    host->Add(channel);
    return Describe(env, channel);
  } catch (...) {
    channel->Close();
    throw;
  }
}

// map(id, mapping, offset, size, access)
Napi::Value Map(const Napi::CallbackInfo& info, const HostPtr& host) {
  const Napi::Env env = info.Env();
  Engine& engine = OpenEngine(info, host);
  const uint32_t id = Uint32Arg(info, 0, "id");
  std::shared_ptr<MappedRange> range = UnwrapMapping(info[1]);
  const uint64_t offset = UintArg(info, 2, "offset");
  const uint64_t size = UintArg(info, 3, "size");
  const uint32_t access = Uint32Arg(info, 4, "access", Access::kRead | Access::kWrite);
  if (!range->Contains(offset, size)) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "size reaches beyond the mapping", "size");
  }
  if ((reinterpret_cast<uintptr_t>(range->data + offset) & 7) != 0) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "offset must be a multiple of 8", "offset");
  }
  if ((access & Access::kWrite) != 0 && !range->writable) {
    throw CodedError(env, "ERR_INVALID_ARG_VALUE", "access asks to write a read-only mapping",
                     "access");
  }
  const uint32_t generation = engine.table().Map(id, std::move(range), offset, size, access);
  if (generation == 0) {
    throw CodedError(env, "ERR_INVALID_STATE", "the slot of this id is still mapped", "id");
  }
  return Napi::Number::New(env, generation);
}

// inject(fault, channel, parameter, offset); parameter -1: none
void Inject(const Napi::CallbackInfo& info, const HostPtr& host) {
  Engine& engine = OpenEngine(info, host);
  const bool none = info[2].IsNumber() && info[2].As<Napi::Number>().DoubleValue() == -1;
  engine.Inject({static_cast<Fault>(Uint32Arg(info, 0, "fault", Fault::kDoubledCompletion)),
                 Uint32Arg(info, 1, "channel"), none ? kNever : UintArg(info, 2, "parameter"),
                 UintArg(info, 3, "offset")});
}

Napi::Value ReadStats(const Napi::CallbackInfo& info, const HostPtr& host) {
  const Stats& stats = host->engine().stats();
  const Napi::Object object = Napi::Object::New(info.Env());
  const uint64_t table_bytes = host->engine().table().bytes();
  object.Set("tableBytes", Napi::Number::New(info.Env(), static_cast<double>(table_bytes)));
  const auto set = [&](const char* name, const std::atomic<uint64_t>& value) {
    object.Set(name, Napi::Number::New(info.Env(), static_cast<double>(value.load())));
  };
  set("operations", stats.operations);
  set("bytes", stats.bytes);
  set("chunks", stats.chunks);
  set("faults", stats.faults);
  set("injected", stats.injected);
  set("sleeps", stats.sleeps);
  return object;
}

// openSoftwareEngine(dispatch)
Napi::Value OpenSoftwareEngine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsFunction()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "dispatch must be a function", "dispatch");
  }
  const HostPtr host = Host::Open(env, info[0].As<Napi::Function>());
  const Napi::Object object = Napi::Object::New(env);
  Set(object, "openChannel", [host](const Napi::CallbackInfo& i) { return OpenChannel(i, host); });
  Set(object, "map", [host](const Napi::CallbackInfo& i) { return Map(i, host); });
  Set(object, "seal", [host](const Napi::CallbackInfo& i) {
    OpenEngine(i, host).table().Seal(Uint32Arg(i, 0, "id"), BoolArg(i, 1, "sealed"));
  });
  Set(object, "unmap", [host](const Napi::CallbackInfo& i) -> Napi::Value {
    const uint32_t id = Uint32Arg(i, 0, "id");
    return Napi::Boolean::New(i.Env(), !host->closed() && host->engine().Unmap(id));
  });
  Set(object, "isMapped", [host](const Napi::CallbackInfo& i) -> Napi::Value {
    const uint32_t id = Uint32Arg(i, 0, "id");
    return Napi::Boolean::New(i.Env(),
                              !host->closed() && host->engine().table().Find(id) != nullptr);
  });
  Set(object, "inject", [host](const Napi::CallbackInfo& i) { Inject(i, host); });
  Set(object, "unstall",
      [host](const Napi::CallbackInfo& i) { OpenEngine(i, host).Unstall(nullptr); });
  Set(object, "stats", [host](const Napi::CallbackInfo& i) { return ReadStats(i, host); });
  Set(object, "close", [host](const Napi::CallbackInfo&) { host->Shutdown(); });
  return object;
}

}  // namespace
}  // namespace software

void InitSoftware(Napi::Env, Napi::Object exports) {
  Export<software::OpenSoftwareEngine>(exports, "openSoftwareEngine");
  Set(exports, "threadCpuTime", [](const Napi::CallbackInfo& info) -> Napi::Value {
    return Napi::Number::New(info.Env(), software::ThreadCpuTime());
  });
}

}  // namespace p2pdma
