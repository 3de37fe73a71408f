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
#include "support/function.h"
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
  return PollHandle::Controls(env, slot);
}

}  // namespace

void InitEventfd(Napi::Env, Napi::Object exports) {
  Export<CreateEventfd>(exports, "createEventfd");
  Export<WatchEventfd>(exports, "watchEventfd");
}

}  // namespace p2pdma
