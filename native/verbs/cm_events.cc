// rdma_get_cm_event(3), on the caller's event loop. Each event is copied and
// acknowledged at once, so no destroy has to wait for us.
#include <errno.h>
#include <fcntl.h>

#include <memory>

#include "cm.h"
#include "handle.h"
#include "support/args.h"
#include "support/owned_fd.h"
#include "support/poll_handle.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

// Of cm.cc.
Napi::Value Describe(Napi::Env env, std::shared_ptr<CmId> id);

namespace {

class ReadableWatch : public PollHandle {
 public:
  ReadableWatch() : PollHandle("p2pdma.verbs.cm") {}

 private:
  bool OnReady(int status, double* value) override {
    *value = status;
    if (status < 0) Close();
    return true;
  }
};

// verbsCmWatch(channel, callback): calls back with 0 while there are events, or once
// with a negative errno; {stop(), hold()}
Napi::Value Watch(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto channel = Use<CmChannel>(info[0], "channel");
  if (!info[1].IsFunction()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "callback must be a function", "callback");
  }
  const OwnedFd copy(fcntl(channel->get()->fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) throw SystemError(env, errno, "fcntl F_DUPFD_CLOEXEC");
  const PollHandle::Slot slot = PollHandle::Start(env, std::make_unique<ReadableWatch>(), copy,
                                                  UV_READABLE, info[1].As<Napi::Function>());
  Napi::Object result = Napi::Object::New(env);
  result.Set("stop", Napi::Function::New(env, [slot](const Napi::CallbackInfo&) {
               if (*slot != nullptr) (*slot)->Close();
             }));
  result.Set("hold", Napi::Function::New(env, [slot](const Napi::CallbackInfo& each) {
               if (*slot != nullptr) (*slot)->Hold(BoolArg(each, 0, "hold"));
             }));
  return result;
}

bool HasConnectParameters(rdma_cm_event_type type) {
  return type == RDMA_CM_EVENT_CONNECT_REQUEST || type == RDMA_CM_EVENT_CONNECT_RESPONSE ||
         type == RDMA_CM_EVENT_ESTABLISHED || type == RDMA_CM_EVENT_REJECTED;
}

double NumberOf(const rdma_cm_id* id) {
  return static_cast<double>(reinterpret_cast<uintptr_t>(id->context));
}

// verbsCmGetEvent(channel): null, or {event, status, number: the id that it is for,
// request: a new id, or null, privateData, qpNumber, responderResources, initiatorDepth}
Napi::Value GetEvent(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto channel = Use<CmChannel>(info[0], "channel");
  rdma_cm_event* event = nullptr;
  if (rdma_get_cm_event(channel->get(), &event) != 0) {
    if (errno == EAGAIN || errno == EINTR) return env.Null();
    throw SystemError(env, errno, "rdma_get_cm_event");
  }
  Napi::Object result = Napi::Object::New(env);
  const auto number = [&](const char* name, double value) { result.Set(name, value); };
  number("event", event->event);
  number("status", event->status);
  const bool is_request = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
  number("number", NumberOf(is_request ? event->listen_id : event->id));
  std::shared_ptr<CmId> request;
  if (is_request) request = std::make_shared<CmId>(channel, event->id);
  const bool has_parameters = HasConnectParameters(event->event);
  const rdma_conn_param& conn = event->param.conn;
  number("qpNumber", has_parameters ? conn.qp_num : 0);
  number("responderResources", has_parameters ? conn.responder_resources : 0);
  number("initiatorDepth", has_parameters ? conn.initiator_depth : 0);
  const size_t length = has_parameters && conn.private_data != nullptr ? conn.private_data_len : 0;
  result.Set("privateData", Napi::Buffer<uint8_t>::Copy(
                                env, static_cast<const uint8_t*>(conn.private_data), length));
  rdma_ack_cm_event(event);
  result.Set("request", request == nullptr ? env.Null() : Describe(env, std::move(request)));
  return result;
}

}  // namespace

void InitCmEvents(Napi::Env env, Napi::Object exports) {
  exports.Set("verbsCmWatch", Napi::Function::New<Watch>(env, "verbsCmWatch"));
  exports.Set("verbsCmGetEvent", Napi::Function::New<GetEvent>(env, "verbsCmGetEvent"));
}

}  // namespace p2pdma::verbs
