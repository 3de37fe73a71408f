// Completion channels and queues: ibv_create_comp_channel(3), ibv_create_cq(3),
// ibv_req_notify_cq(3).
#include <errno.h>
#include <fcntl.h>

#include "handle.h"
#include "objects.h"
#include "support/args.h"
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
        ibv_comp_channel* const channel = ibv_create_comp_channel(device->get());
        if (channel == nullptr) return errno;
        *out = std::make_shared<Channel>(device.object(), channel);
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
        ibv_cq* const cq = ibv_create_cq(device->get(), capacity, context, events, 0);
        if (cq == nullptr) return errno;
        *out = std::make_shared<CompletionQueue>(device.object(), channel.object(), cq);
        return 0;
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

void InitCompletion(Napi::Env env, Napi::Object exports) {
  exports.Set("verbsCreateChannel", Napi::Function::New<CreateChannel>(env, "verbsCreateChannel"));
  exports.Set("verbsCreateCq", Napi::Function::New<CreateCq>(env, "verbsCreateCq"));
  exports.Set("verbsArmCq", Napi::Function::New<ArmCq>(env, "verbsArmCq"));
}

}  // namespace p2pdma::verbs
