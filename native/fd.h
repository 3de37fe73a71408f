// The JavaScript object that owns one file descriptor: closed by `close()`, by
// the garbage collector and at the end of the environment. A call that is
// under way off the loop holds the descriptor too, so its number is not reused
// before that call has returned.
#pragma once

#include <napi.h>

#include <memory>

#include "support/owned_fd.h"

namespace p2pdma {

class Fd : public Napi::ObjectWrap<Fd> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit Fd(const Napi::CallbackInfo& info);

 private:
  friend std::shared_ptr<OwnedFd> UnwrapFd(const Napi::Value& value);
  friend std::shared_ptr<OwnedFd> TakeFd(const Napi::Value& value);

  Napi::Value Number(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  std::shared_ptr<OwnedFd> fd_;
};

// A new Fd object that owns `fd`.
Napi::Value WrapFd(Napi::Env env, OwnedFd fd);

// The descriptor of an Fd object; throws ERR_INVALID_ARG_TYPE for anything
// else and ERR_CLOSED after close().
std::shared_ptr<OwnedFd> UnwrapFd(const Napi::Value& value);

// Closes an Fd object and hands its descriptor over, null if it was closed.
std::shared_ptr<OwnedFd> TakeFd(const Napi::Value& value);

}  // namespace p2pdma
