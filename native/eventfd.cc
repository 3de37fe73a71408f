// eventfd(2), as interrupts come: a counter, and a watcher on the caller's own
// event loop that reads it and calls back each time.
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

#include <memory>
#include <utility>

#include "fd.h"
#include "init.h"
#include "support/args.h"

namespace p2pdma {

namespace {

// createEventfd(): an Fd, non-blocking
Napi::Value CreateEventfd(const Napi::CallbackInfo& info) {
  OwnedFd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) throw SystemError(info.Env(), errno, "eventfd");
  return WrapFd(info.Env(), std::move(fd));
}

// Lives until its handle's close callback; `Close` begins that, once.
class Watcher {
 public:
  // Null once it is closed.
  using Slot = std::shared_ptr<Watcher*>;

  Watcher(Napi::Env env, OwnedFd fd) : env_(env), fd_(std::move(fd)) {}

  static Slot Start(Napi::Env env, OwnedFd fd, Napi::Function callback) {
    uv_loop_t* loop = nullptr;
    NAPI_THROW_IF_FAILED(env, napi_get_uv_event_loop(env, &loop), nullptr);
    auto watcher = std::make_unique<Watcher>(env, std::move(fd));
    int error = uv_poll_init(loop, &watcher->poll_, watcher->fd_.get());
    if (error != 0) throw SystemError(env, -error, "epoll_ctl");
    Watcher* const self = watcher.release();
    self->poll_.data = self;
    self->slot_ = std::make_shared<Watcher*>(self);
    self->callback_ = Napi::Persistent(callback);
    error = uv_poll_start(&self->poll_, UV_READABLE, OnReady);
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
      auto* const self = static_cast<Watcher*>(handle->data);
      if (self->hook_ != nullptr) napi_remove_async_cleanup_hook(self->hook_);
      delete self;
    });
  }

  // Whether it keeps the process alive.
  void Hold(bool hold) {
    auto* const handle = reinterpret_cast<uv_handle_t*>(&poll_);
    if (hold) {
      uv_ref(handle);
    } else {
      uv_unref(handle);
    }
  }

 private:
  static void OnReady(uv_poll_t* handle, int status, int) {
    auto* const self = static_cast<Watcher*>(handle->data);
    uint64_t count = 0;
    // Somebody else may have read it: then there is nothing to tell.
    if (status == 0 && read(self->fd_.get(), &count, sizeof(count)) < 0) return;
    const Napi::Env env = self->env_;
    const Napi::HandleScope scope(env);
    try {
      const Napi::Function callback = self->callback_.Value();
      const Napi::AsyncContext context(env, "p2pdma.eventfd");
      if (status != 0) self->Close();
      callback.MakeCallback(
          env.Global(), {Napi::Number::New(env, status < 0 ? status : static_cast<double>(count))},
          context);
    } catch (const Napi::Error& error) {
      // The callback threw, or the environment runs no JavaScript any more.
      if (!error.IsEmpty()) napi_fatal_exception(env, error.Value());
    }
  }

  // The environment ends: the loop runs until the handle is closed.
  static void OnTeardown(napi_async_cleanup_hook_handle, void* data) {
    static_cast<Watcher*>(data)->Close();
  }

  const Napi::Env env_;
  // Closed after the handle is.
  const OwnedFd fd_;
  Napi::FunctionReference callback_;
  uv_poll_t poll_;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  Slot slot_;
};

// watchEventfd(fd, callback): calls back with the count, or once with a
// negative errno; {stop(), hold(whether it keeps the process alive)}
Napi::Value WatchEventfd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  if (!info[1].IsFunction()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "callback must be a function", "callback");
  }
  // libuv allows one watcher per descriptor, and aborts when one is closed under it.
  OwnedFd copy(fcntl(fd->get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) throw SystemError(env, errno, "fcntl F_DUPFD_CLOEXEC");
  const Watcher::Slot slot = Watcher::Start(env, std::move(copy), info[1].As<Napi::Function>());
  Napi::Object result = Napi::Object::New(env);
  result.Set("stop", Napi::Function::New(env, [slot](const Napi::CallbackInfo&) {
               if (*slot != nullptr) (*slot)->Close();
             }));
  result.Set("hold", Napi::Function::New(env, [slot](const Napi::CallbackInfo& each) {
               if (*slot != nullptr) (*slot)->Hold(BoolArg(each, 0, "hold"));
             }));
  return result;
}

}  // namespace

void InitEventfd(Napi::Env env, Napi::Object exports) {
  exports.Set("createEventfd", Napi::Function::New<CreateEventfd>(env, "createEventfd"));
  exports.Set("watchEventfd", Napi::Function::New<WatchEventfd>(env, "watchEventfd"));
}

}  // namespace p2pdma
