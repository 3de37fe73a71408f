// Waiting for a descriptor on the caller's own event loop. Each wait polls a
// duplicate of its own: libuv allows one watcher per descriptor, and aborts
// when one is closed under it.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <uv.h>

#include <memory>
#include <utility>

#include "fd.h"
#include "init.h"
#include "support/args.h"

namespace p2pdma {

namespace {

// Lives until its handle's close callback; `Close` begins that, once.
class Wait {
 public:
  // Null once the wait is over: what the function that stops it looks at.
  using Slot = std::shared_ptr<Wait*>;

  Wait(Napi::Env env, OwnedFd fd) : env_(env), fd_(std::move(fd)) {}

  static Slot Start(Napi::Env env, OwnedFd fd, int events, Napi::Function callback) {
    uv_loop_t* loop = nullptr;
    NAPI_THROW_IF_FAILED(env, napi_get_uv_event_loop(env, &loop), nullptr);
    auto wait = std::make_unique<Wait>(env, std::move(fd));
    int error = uv_poll_init(loop, &wait->poll_, wait->fd_.get());
    // EPERM: a file that is always ready, a memfd for one (epoll_ctl(2)).
    if (error != 0) throw SystemError(env, -error, "epoll_ctl");
    Wait* const self = wait.release();
    self->poll_.data = self;
    self->slot_ = std::make_shared<Wait*>(self);
    self->callback_ = Napi::Persistent(callback);
    error = uv_poll_start(&self->poll_, events, OnReady);
    if (error == 0 && napi_add_async_cleanup_hook(env, OnTeardown, self, &self->hook_) != napi_ok) {
      error = UV_ENOMEM;
    }
    if (error != 0) {
      self->Close();
      throw SystemError(env, -error, "epoll_ctl");
    }
    return self->slot_;
  }

  void Close() {
    if (*slot_ == nullptr) return;
    *slot_ = nullptr;
    uv_poll_stop(&poll_);
    callback_.Reset();
    uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
      auto* const self = static_cast<Wait*>(handle->data);
      if (self->hook_ != nullptr) napi_remove_async_cleanup_hook(self->hook_);
      delete self;
    });
  }

 private:
  // Level-triggered: it would be called again and again, so it ends here.
  static void OnReady(uv_poll_t* handle, int status, int) {
    auto* const self = static_cast<Wait*>(handle->data);
    const Napi::Env env = self->env_;
    const Napi::HandleScope scope(env);
    try {
      const Napi::Function callback = self->callback_.Value();
      const Napi::AsyncContext context(env, "p2pdma.poll");
      self->Close();
      callback.MakeCallback(env.Global(), {Napi::Number::New(env, status)}, context);
    } catch (const Napi::Error& error) {
      // The callback threw, or the environment runs no JavaScript any more.
      if (!error.IsEmpty()) napi_fatal_exception(env, error.Value());
    }
  }

  // The environment ends: the loop runs until the handle is closed.
  static void OnTeardown(napi_async_cleanup_hook_handle, void* data) {
    static_cast<Wait*>(data)->Close();
  }

  const Napi::Env env_;
  // Closed after the handle is.
  const OwnedFd fd_;
  Napi::FunctionReference callback_;
  uv_poll_t poll_;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  Slot slot_;
};

// pollFd(fd, events, callback): calls back once with 0, or a negative errno,
// unless the function that it returns is called first.
Napi::Value PollFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const uint32_t events = Uint32Arg(info, 1, "events", UV_READABLE | UV_WRITABLE);
  if (events == 0) throw CodedError(env, "ERR_OUT_OF_RANGE", "events must not be 0", "events");
  if (!info[2].IsFunction()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "callback must be a function", "callback");
  }
  OwnedFd copy(fcntl(fd->get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) throw SystemError(env, errno, "fcntl F_DUPFD_CLOEXEC");
  const Wait::Slot slot =
      Wait::Start(env, std::move(copy), static_cast<int>(events), info[2].As<Napi::Function>());
  return Napi::Function::New(
      env,
      [slot](const Napi::CallbackInfo&) {
        if (*slot != nullptr) (*slot)->Close();
      },
      "stop");
}

// pollNow(fd, events): poll(2) without waiting; returns the events
Napi::Value PollNow(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  struct pollfd entry = {fd->get(), static_cast<short>(Uint32Arg(info, 1, "events", INT16_MAX)), 0};
  if (poll(&entry, 1, 0) < 0) throw SystemError(env, errno, "poll");
  return Napi::Number::New(env, entry.revents);
}

}  // namespace

void InitPoll(Napi::Env env, Napi::Object exports) {
  exports.Set("pollFd", Napi::Function::New<PollFd>(env, "pollFd"));
  exports.Set("pollNow", Napi::Function::New<PollNow>(env, "pollNow"));
}

}  // namespace p2pdma
