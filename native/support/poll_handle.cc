#include "support/poll_handle.h"

#include <errno.h>
#include <fcntl.h>

#include <utility>

#include "support/args.h"
#include "support/error.h"
#include "support/function.h"

namespace p2pdma {

PollHandle::Slot PollHandle::Start(Napi::Env env, std::unique_ptr<PollHandle> handle,
                                   const OwnedFd& fd, int events, Napi::Function callback) {
  handle->fd_ = OwnedFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!handle->fd_) throw SystemError(env, errno, "fcntl F_DUPFD_CLOEXEC");
  handle->env_ = env;
  // All that may throw comes before the loop has the handle.
  handle->slot_ = std::make_shared<PollHandle*>(handle.get());
  handle->callback_ = Napi::Persistent(callback);
  handle->context_ = std::make_shared<Napi::AsyncContext>(env, handle->name_);
  uv_loop_t* loop = nullptr;
  NAPI_THROW_IF_FAILED(env, napi_get_uv_event_loop(env, &loop), nullptr);
  int error = uv_poll_init(loop, &handle->poll_, handle->fd_.get());
  if (error != 0) throw SystemError(env, -error, "epoll_ctl");
  PollHandle* const self = handle.release();
  self->poll_.data = self;
  error = uv_poll_start(&self->poll_, events, [](uv_poll_t* poll, int status, int) {
    static_cast<PollHandle*>(poll->data)->Call(status);
  });
  // The environment ends: the loop runs until the handle is closed.
  const auto on_teardown = [](napi_async_cleanup_hook_handle, void* data) {
    static_cast<PollHandle*>(data)->Close();
  };
  if (error == 0 && napi_add_async_cleanup_hook(env, on_teardown, self, &self->hook_) != napi_ok) {
    error = UV_ENOMEM;
  }
  if (error != 0) {
    self->Close();
    throw SystemError(env, -error, "epoll_ctl");
  }
  return self->slot_;
}

void PollHandle::Close() {
  if (*slot_ == nullptr) return;
  *slot_ = nullptr;
  uv_poll_stop(&poll_);
  callback_.Reset();
  context_.reset();
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    auto* const self = static_cast<PollHandle*>(handle->data);
    if (self->hook_ != nullptr) napi_remove_async_cleanup_hook(self->hook_);
    delete self;
  });
}

void PollHandle::Hold(bool hold) {
  auto* const handle = reinterpret_cast<uv_handle_t*>(&poll_);
  if (hold) {
    uv_ref(handle);
  } else {
    uv_unref(handle);
  }
}

void PollHandle::Call(int status) {
  const Napi::Env env = env_;
  const Napi::HandleScope scope(env);
  try {
    // Kept: `OnReady`, or the callback, may close this handle.
    const Napi::Function callback = callback_.Value();
    const std::shared_ptr<Napi::AsyncContext> context = context_;
    double value = 0;
    if (!OnReady(status, &value)) return;
    callback.MakeCallback(env.Global(), {Napi::Number::New(env, value)}, *context);
  } catch (...) {
    // The callback threw, or there is no memory for it.
    ReportHandled(env);
  }
}

Napi::Object PollHandle::Controls(Napi::Env env, const Slot& slot) {
  try {
    Napi::Object result = Napi::Object::New(env);
    Set(result, "stop", [slot](const Napi::CallbackInfo&) {
      if (*slot != nullptr) (*slot)->Close();
    });
    Set(result, "hold", [slot](const Napi::CallbackInfo& each) {
      if (*slot != nullptr) (*slot)->Hold(BoolArg(each, 0, "hold"));
    });
    return result;
  } catch (...) {
    (*slot)->Close();
    throw;
  }
}

}  // namespace p2pdma
