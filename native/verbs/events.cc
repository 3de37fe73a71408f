// Completion events and asynchronous events, on the caller's event loop:
// ibv_get_cq_event(3), ibv_get_async_event(3). Each is acknowledged at once, so
// no destroy has to wait for us.
#include <errno.h>
#include <fcntl.h>

#include <memory>

#include "handle.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "support/owned_fd.h"
#include "support/poll_handle.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

namespace {

double ContextAsNumber(const void* context) {
  return static_cast<double>(reinterpret_cast<uintptr_t>(context));
}

class CompletionWatch : public PollHandle {
 public:
  explicit CompletionWatch(std::shared_ptr<Channel> channel)
      : PollHandle("p2pdma.verbs.completion"), channel_(std::move(channel)) {}

 private:
  // One at a time: the poll is level-triggered.
  bool OnReady(int status, double* value) override {
    if (!channel_->open()) {
      Close();
      return false;
    }
    ibv_cq* cq = nullptr;
    void* context = nullptr;
    if (status == 0 && ibv.get_cq_event(channel_->get(), &cq, &context) == 0) {
      ibv.ack_cq_events(cq, 1);
      *value = ContextAsNumber(context);
      return true;
    }
    const int error = status < 0 ? -status : errno;
    if (error == EAGAIN || error == EINTR) return false;
    *value = -error;
    Close();
    return true;
  }
  const std::shared_ptr<Channel> channel_;
};

class AsyncWatch : public PollHandle {
 public:
  explicit AsyncWatch(std::shared_ptr<Device> device)
      : PollHandle("p2pdma.verbs.async"), device_(std::move(device)) {}

 private:
  // What happened in the low byte, whom it happened to above it.
  bool OnReady(int status, double* value) override {
    if (!device_->open()) {
      Close();
      return false;
    }
    ibv_async_event event = {};
    if (status == 0 && ibv.get_async_event(device_->get(), &event) == 0) {
      *value = static_cast<double>(event.event_type) + 256 * Whom(event);
      ibv.ack_async_event(&event);
      return true;
    }
    const int error = status < 0 ? -status : errno;
    if (error == EAGAIN || error == EINTR) return false;
    *value = -error;
    Close();
    return true;
  }

  static double Whom(const ibv_async_event& event) {
    switch (event.event_type) {
      case IBV_EVENT_CQ_ERR:
        return ContextAsNumber(event.element.cq->cq_context);
      case IBV_EVENT_QP_FATAL:
      case IBV_EVENT_QP_REQ_ERR:
      case IBV_EVENT_QP_ACCESS_ERR:
      case IBV_EVENT_COMM_EST:
      case IBV_EVENT_SQ_DRAINED:
      case IBV_EVENT_PATH_MIG:
      case IBV_EVENT_PATH_MIG_ERR:
      case IBV_EVENT_QP_LAST_WQE_REACHED:
        return event.element.qp->qp_num;
      case IBV_EVENT_SRQ_ERR:
      case IBV_EVENT_SRQ_LIMIT_REACHED:
        return ContextAsNumber(event.element.srq->srq_context);
      case IBV_EVENT_PORT_ACTIVE:
      case IBV_EVENT_PORT_ERR:
      case IBV_EVENT_LID_CHANGE:
      case IBV_EVENT_PKEY_CHANGE:
      case IBV_EVENT_SM_CHANGE:
      case IBV_EVENT_CLIENT_REREGISTER:
      case IBV_EVENT_GID_CHANGE:
        return event.element.port_num;
      default:
        return 0;
    }
  }

  const std::shared_ptr<Device> device_;
};

// {stop(), hold(whether it keeps the process alive)}
Napi::Value Start(const Napi::CallbackInfo& info, std::unique_ptr<PollHandle> handle, int fd) {
  const Napi::Env env = info.Env();
  if (!info[1].IsFunction()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "callback must be a function", "callback");
  }
  const OwnedFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) throw SystemError(env, errno, "fcntl F_DUPFD_CLOEXEC");
  const PollHandle::Slot slot =
      PollHandle::Start(env, std::move(handle), copy, UV_READABLE, info[1].As<Napi::Function>());
  return PollHandle::Controls(env, slot);
}

// verbsWatchChannel(channel, callback): calls back with the number of a queue, or
// once with a negative errno
Napi::Value WatchChannel(const Napi::CallbackInfo& info) {
  auto channel = Use<Channel>(info[0], "channel");
  const int fd = channel->get()->fd;
  return Start(info, std::make_unique<CompletionWatch>(std::move(channel)), fd);
}

// verbsWatchAsync(device, callback): calls back with event + 256 * element, or once
// with a negative errno
Napi::Value WatchAsync(const Napi::CallbackInfo& info) {
  auto device = Use<Device>(info[0], "device");
  const int fd = device->get()->async_fd;
  const int flags = fcntl(fd, F_GETFL);
  if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) throw SystemError(info.Env(), errno, "fcntl");
  return Start(info, std::make_unique<AsyncWatch>(std::move(device)), fd);
}

}  // namespace

void InitEvents(Napi::Env, Napi::Object exports) {
  Export<WatchChannel>(exports, "verbsWatchChannel");
  Export<WatchAsync>(exports, "verbsWatchAsync");
}

}  // namespace p2pdma::verbs
