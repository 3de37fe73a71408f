// Completion channels and queues: ibv_create_comp_channel(3), ibv_create_cq(3),
// ibv_req_notify_cq(3).
#include <errno.h>
#include <fcntl.h>

#include "handle.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

Napi::Value Describe(Napi::Env env, std::shared_ptr<Channel> channel) {
  return Wrap(env, std::move(channel));
}

Napi::Value Describe(Napi::Env env, std::shared_ptr<CompletionQueue> queue) {
  const int capacity = queue->get()->cqe;
  Napi::Object handle = Wrap(env, std::move(queue));
  handle.Set("capacity", static_cast<double>(capacity));
  return handle;
}

namespace {

// verbsCreateChannel(device): a promise
Napi::Value CreateChannel(const Napi::CallbackInfo& info) {
  return StartMaking<Channel>(
      info.Env(), "ibv_create_comp_channel",
      [device = Borrow<Device>(info[0], "device")](std::shared_ptr<Channel>* out) {
        ibv_comp_channel* const channel = ibv.create_comp_channel(device->get());
        const int error = Own(out, channel, ibv.destroy_comp_channel, device.object(), channel);
        if (error != 0) return error;
        // Read on the event loop, which it must not hold up.
        const int flags = fcntl(channel->fd, F_GETFL);
        return fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) < 0 ? errno : 0;
      });
}

// verbsCreateCq(device, capacity, channel | null, number): a promise. `number`
// is what its events are called.
Napi::Value CreateCq(const Napi::CallbackInfo& info) {
  auto device = Borrow<Device>(info[0], "device");
  const auto capacity = static_cast<int>(Uint32Arg(info, 1, "capacity", INT32_MAX));
  Lease<Channel> channel(UseOrNull<Channel>(info[2], "channel"));
  void* const context =
      reinterpret_cast<void*>(static_cast<uintptr_t>(Uint32Arg(info, 3, "number")));
  return StartMaking<CompletionQueue>(
      info.Env(), "ibv_create_cq", [=](std::shared_ptr<CompletionQueue>* out) {
        ibv_comp_channel* const events = channel.object() == nullptr ? nullptr : channel->get();
        ibv_cq* const cq = ibv.create_cq(device->get(), capacity, context, events, 0);
        return Own(out, cq, ibv.destroy_cq, device.object(), channel.object(), cq);
      });
}

// verbsArmCq(cq, solicitedOnly): the next completion is an event
Napi::Value ArmCq(const Napi::CallbackInfo& info) {
  const auto queue = Use<CompletionQueue>(info[0], "cq");
  const int error = ibv_req_notify_cq(queue->get(), BoolArg(info, 1, "solicitedOnly") ? 1 : 0);
  if (error != 0) throw SystemError(info.Env(), error, "ibv_req_notify_cq");
  return info.Env().Undefined();
}

}  // namespace

void InitCompletion(Napi::Env, Napi::Object exports) {
  Export<CreateChannel>(exports, "verbsCreateChannel");
  Export<CreateCq>(exports, "verbsCreateCq");
  Export<ArmCq>(exports, "verbsArmCq");
}

}  // namespace p2pdma::verbs
