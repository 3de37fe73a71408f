// A descriptor polled on the caller's own event loop, with a callback into
// JavaScript. It polls a duplicate of its own: libuv allows one watcher per
// descriptor, and aborts when one is closed under it.
#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>

#include "support/owned_fd.h"

namespace p2pdma {

// Lives until its handle's close callback; `Close` begins that, once.
class PollHandle {
 public:
  // Null once it is closed: what the functions that stop it look at.
  using Slot = std::shared_ptr<PollHandle*>;

  // Of a duplicate of `fd`. EPERM: a file that is always ready, a memfd for one (epoll_ctl(2)).
  static Slot Start(Napi::Env env, std::unique_ptr<PollHandle> handle, const OwnedFd& fd,
                    int events, Napi::Function callback);
  // {stop(), hold(whether it keeps the process alive)}. Closes it where there is no memory for
  // them.
  static Napi::Object Controls(Napi::Env env, const Slot& slot);

  virtual ~PollHandle() = default;

  void Close();
  // Whether it keeps the process alive.
  void Hold(bool hold);

 protected:
  explicit PollHandle(const char* name) : name_(name) {}

  // What the callback is told, in `*value`; false: nothing. The handle may be closed here.
  virtual bool OnReady(int status, double* value) = 0;
  int fd() const { return fd_.get(); }

 private:
  void Call(int status);

  // Of the asynchronous context, which is made once: each call is one of its callbacks.
  const char* const name_;
  std::shared_ptr<Napi::AsyncContext> context_;
  napi_env env_ = nullptr;
  // Closed after the handle is.
  OwnedFd fd_;
  Napi::FunctionReference callback_;
  uv_poll_t poll_;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  Slot slot_;
};

}  // namespace p2pdma
