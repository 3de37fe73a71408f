// eventfd(2), as interrupts come: a counter, and a watcher on the caller's own
// event loop that reads it and calls back each time.
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/poll_handle.h"

namespace p2pdma {

namespace {

// createEventfd(): an Fd, non-blocking
Napi::Value CreateEventfd(const Napi::CallbackInfo& info) {
  OwnedFd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) throw SystemError(info.Env(), errno, "eventfd");
  return WrapFd(info.Env(), std::move(fd));
}

class Watcher : public PollHandle {
 public:
  Watcher() : PollHandle("p2pdma.eventfd") {}

 private:
  bool OnReady(int status, double* value) override {
    *value = status;
    if (status < 0) {
      Close();
      return true;
    }
    uint64_t count = 0;
    // Somebody else may have read it: then there is nothing to tell.
    if (read(fd(), &count, sizeof(count)) < 0) return false;
    *value = static_cast<double>(count);
    return true;
  }
};

// watchEventfd(fd, callback): calls back with the count, or once with a
// negative errno; {stop(), hold(whether it keeps the process alive)}
Napi::Value WatchEventfd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  if (!info[1].IsFunction()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "callback must be a function", "callback");
  }
  const PollHandle::Slot slot = PollHandle::Start(env, std::make_unique<Watcher>(), *fd,
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

}  // namespace

void InitEventfd(Napi::Env env, Napi::Object exports) {
  exports.Set("createEventfd", Napi::Function::New<CreateEventfd>(env, "createEventfd"));
  exports.Set("watchEventfd", Napi::Function::New<WatchEventfd>(env, "watchEventfd"));
}

}  // namespace p2pdma
