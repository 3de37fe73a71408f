// rdma_get_cm_event(3), on the caller's event loop. Each event is copied and
// acknowledged at once, so no destroy has to wait for us.
#include <errno.h>
#include <fcntl.h>

#include <memory>

#include "cm.h"
#include "handle.h"
#include "support/args.h"
#include "support/function.h"
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
  return PollHandle::Controls(env, slot);
}

bool HasConnectParameters(rdma_cm_event_type type) {
  return type == RDMA_CM_EVENT_CONNECT_REQUEST || type == RDMA_CM_EVENT_CONNECT_RESPONSE ||
         type == RDMA_CM_EVENT_ESTABLISHED || type == RDMA_CM_EVENT_REJECTED;
}

double NumberOf(const rdma_cm_id* id) {
  return static_cast<double>(reinterpret_cast<uintptr_t>(id->context));
}

// An event is acknowledged in any case: an id with one that is not is never destroyed.
class Acknowledged {
 public:
  explicit Acknowledged(rdma_cm_event* event) : event_(event) {}
  ~Acknowledged() { rdma.ack_cm_event(event_); }
  Acknowledged(const Acknowledged&) = delete;
  Acknowledged& operator=(const Acknowledged&) = delete;

 private:
  rdma_cm_event* const event_;
};

// verbsCmGetEvent(channel): null, or {event, status, number: the id that it is for,
// request: a new id, or null, privateData, qpNumber, responderResources, initiatorDepth}
Napi::Value GetEvent(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto channel = Use<CmChannel>(info[0], "channel");
  rdma_cm_event* event = nullptr;
  if (rdma.get_cm_event(channel->get(), &event) != 0) {
    if (errno == EAGAIN || errno == EINTR) return env.Null();
    throw SystemError(env, errno, "rdma_get_cm_event");
  }
  std::shared_ptr<CmId> request;
  const Acknowledged acknowledged(event);
  const bool is_request = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
  // Without memory for its owner the request is refused: the peer would wait for ever.
  const int error = is_request ? Own(&request, event->id, rdma.destroy_id, channel, event->id) : 0;
  if (error != 0) throw SystemError(env, error, "malloc");
  Napi::Object result = Napi::Object::New(env);
  const auto number = [&](const char* name, double value) { result.Set(name, value); };
  number("event", event->event);
  number("status", event->status);
  number("number", NumberOf(is_request ? event->listen_id : event->id));
  const bool has_parameters = HasConnectParameters(event->event);
  const rdma_conn_param& conn = event->param.conn;
  number("qpNumber", has_parameters ? conn.qp_num : 0);
  number("responderResources", has_parameters ? conn.responder_resources : 0);
  number("initiatorDepth", has_parameters ? conn.initiator_depth : 0);
  const size_t length = has_parameters && conn.private_data != nullptr ? conn.private_data_len : 0;
  result.Set("privateData", Napi::Buffer<uint8_t>::Copy(
                                env, static_cast<const uint8_t*>(conn.private_data), length));
  result.Set("request", request == nullptr ? env.Null() : Describe(env, std::move(request)));
  return result;
}

}  // namespace

void InitCmEvents(Napi::Env, Napi::Object exports) {
  Export<Watch>(exports, "verbsCmWatch");
  Export<GetEvent>(exports, "verbsCmGetEvent");
}

}  // namespace p2pdma::verbs
