// memfd_create(2) and the seals of fcntl(2).
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>

#include <utility>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"

namespace p2pdma {

namespace {

// createMemfd(name, flags): always close-on-exec.
Napi::Value CreateMemfd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string name = StringArg(info, 0, "name");
  const uint32_t flags = Uint32Arg(info, 1, "flags");
  OwnedFd fd(memfd_create(name.c_str(), flags | MFD_CLOEXEC));
  if (!fd) throw SystemError(env, errno, "memfd_create");
  return WrapFd(env, std::move(fd));
}

// truncateFd(fd, size)
Napi::Value TruncateFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const uint64_t size = UintArg(info, 1, "size");
  if (ftruncate(fd->get(), static_cast<off_t>(size)) < 0) {
    throw SystemError(env, errno, "ftruncate");
  }
  return env.Undefined();
}

// addSeals(fd, seals)
Napi::Value AddSeals(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const uint32_t seals = Uint32Arg(info, 1, "seals", INT32_MAX);
  if (fcntl(fd->get(), F_ADD_SEALS, seals) < 0) throw SystemError(env, errno, "fcntl F_ADD_SEALS");
  return env.Undefined();
}

// getSeals(fd)
Napi::Value GetSeals(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const int seals = fcntl(fd->get(), F_GET_SEALS);
  if (seals < 0) throw SystemError(env, errno, "fcntl F_GET_SEALS");
  return Napi::Number::New(env, seals);
}

}  // namespace

void InitMemfd(Napi::Env, Napi::Object exports) {
  Export<CreateMemfd>(exports, "createMemfd");
  Export<TruncateFd>(exports, "truncateFd");
  Export<AddSeals>(exports, "addSeals");
  Export<GetSeals>(exports, "getSeals");
}

}  // namespace p2pdma
