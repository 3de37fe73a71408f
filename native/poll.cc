// Waiting for a descriptor, once, on the caller's own event loop.
#include <errno.h>
#include <poll.h>

#include <memory>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"
#include "support/poll_handle.h"

namespace p2pdma {

namespace {

class Wait : public PollHandle {
 public:
  Wait() : PollHandle("p2pdma.poll") {}

 private:
  // Level-triggered: it would be called again and again, so it ends here.
  bool OnReady(int status, double* value) override {
    *value = status;
    Close();
    return true;
  }
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
  const PollHandle::Slot slot = PollHandle::Start(
      env, std::make_unique<Wait>(), *fd, static_cast<int>(events), info[2].As<Napi::Function>());
  return PollHandle::Controls(env, slot).Get("stop");
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

void InitPoll(Napi::Env, Napi::Object exports) {
  Export<PollFd>(exports, "pollFd");
  Export<PollNow>(exports, "pollNow");
}

}  // namespace p2pdma
