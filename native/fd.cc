#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <utility>

#include "init.h"
#include "support/args.h"
#include "support/env_state.h"
#include "support/function.h"
#include "support/syscall_job.h"

namespace p2pdma {

namespace {

constexpr napi_type_tag kFdTag = {0x5c0f3a52d1e94b07, 0x9a4e6b2c81d7f350};

// include/uapi/linux/magic.h of 5.3 and later.
#ifndef DMA_BUF_MAGIC
#define DMA_BUF_MAGIC 0x444d4142
#endif

using FdInit = std::shared_ptr<OwnedFd>;

// openFd(path, flags): always close-on-exec.
Napi::Value OpenFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = StringArg(info, 0, "path");
  const uint32_t flags = Uint32Arg(info, 1, "flags");
  OwnedFd fd(open(path.c_str(), static_cast<int>(flags) | O_CLOEXEC));
  if (!fd) throw SystemError(env, errno, "open");
  return WrapFd(env, std::move(fd));
}

// adoptFd(number): takes over an open descriptor.
Napi::Value AdoptFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int number = static_cast<int>(Uint32Arg(info, 0, "fd", INT32_MAX));
  const int flags = fcntl(number, F_GETFD);
  if (flags < 0) throw SystemError(env, errno, "fcntl F_GETFD");
  // Until there is an owner for it, it stays the caller's.
  const Napi::Value owner = WrapFd(env, OwnedFd());
  if (fcntl(number, F_SETFD, flags | FD_CLOEXEC) < 0) {
    throw SystemError(env, errno, "fcntl F_SETFD");
  }
  *UnwrapFd(owner) = OwnedFd(number);
  return owner;
}

// seekEnd(fd): to the end, as lseek(2) returns it.
Napi::Value SeekEnd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const off_t at = lseek(UnwrapFd(info[0])->get(), 0, SEEK_END);
  if (at < 0) throw SystemError(env, errno, "lseek");
  return Napi::Number::New(env, static_cast<double>(at));
}

// dupFd(fd | number): a second descriptor of the same file.
Napi::Value DupFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<OwnedFd> held;
  int number;
  if (info[0].IsNumber()) {
    number = static_cast<int>(Uint32Arg(info, 0, "fd", INT32_MAX));
  } else {
    held = UnwrapFd(info[0]);
    number = held->get();
  }
  OwnedFd fd(fcntl(number, F_DUPFD_CLOEXEC, 0));
  if (!fd) throw SystemError(env, errno, "fcntl F_DUPFD_CLOEXEC");
  return WrapFd(env, std::move(fd));
}

// giveFd(fd): a duplicate as a plain number, which somebody else has to close.
Napi::Value GiveFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = fcntl(UnwrapFd(info[0])->get(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) throw SystemError(env, errno, "fcntl F_DUPFD_CLOEXEC");
  return Napi::Number::New(env, fd);
}

// closeFd(fd): a promise; for a close that the kernel takes its time for
Napi::Value CloseFd(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "close", [fd = TakeFd(info[0])]() mutable {
    fd.reset();
    return 0;
  });
}

// statFd(fd): {type, size, inode, device, seals}. `type` is what may be mapped
// without the danger of a SIGBUS, and how.
Napi::Value StatFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  struct stat stat;
  struct statfs filesystem;
  if (fstat(fd->get(), &stat) < 0) throw SystemError(env, errno, "fstat");
  if (fstatfs(fd->get(), &filesystem) < 0) throw SystemError(env, errno, "fstatfs");
  const int seals = fcntl(fd->get(), F_GET_SEALS);
  const char* type = "other";
  off_t size = stat.st_size;
  if (filesystem.f_type == DMA_BUF_MAGIC) {
    type = "dma-buf";
    // st_size is not filled in by every kernel; drivers/dma-buf/dma-buf.c,
    // dma_buf_llseek: SEEK_END with offset 0 is how the size is asked for.
    size = lseek(fd->get(), 0, SEEK_END);
    if (size < 0) throw SystemError(env, errno, "lseek");
  } else if (seals >= 0) {
    type = "memfd";
  } else if (S_ISREG(stat.st_mode)) {
    type = "file";
  } else if (S_ISCHR(stat.st_mode)) {
    type = "device";
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("type", type);
  result.Set("size", static_cast<double>(size));
  result.Set("inode", static_cast<double>(stat.st_ino));
  result.Set("device", static_cast<double>(stat.st_dev));
  result.Set("pageSize",
             static_cast<double>(filesystem.f_type == HUGETLBFS_MAGIC ? filesystem.f_bsize
                                                                      : sysconf(_SC_PAGESIZE)));
  result.Set("seals", seals < 0 ? env.Null() : Napi::Number::New(env, seals).As<Napi::Value>());
  return result;
}

}  // namespace

Fd::Fd(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Fd>(info) {
  if (!info[0].IsExternal()) {
    throw CodedError(info.Env(), "ERR_ILLEGAL_CONSTRUCTOR", "Fd has no public constructor");
  }
  fd_ = *info[0].As<Napi::External<FdInit>>().Data();
  info.This().As<Napi::Object>().TypeTag(&kFdTag);
}

Napi::Function Fd::Define(Napi::Env env) {
  return DefineClass(
      env, "Fd", {InstanceAccessor<&Fd::Number>("number"), InstanceMethod<&Fd::Close>("close")});
}

Napi::Value Fd::Number(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), fd_ ? fd_->get() : -1);
}

Napi::Value Fd::Close(const Napi::CallbackInfo& info) {
  fd_.reset();
  return info.Env().Undefined();
}

Napi::Value WrapFd(Napi::Env env, OwnedFd fd) {
  FdInit init = std::make_shared<OwnedFd>(std::move(fd));
  return EnvState::Of(env).fd_constructor.New({Napi::External<FdInit>::New(env, &init)});
}

std::shared_ptr<OwnedFd> UnwrapFd(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kFdTag)) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "fd must be an Fd", "fd");
  }
  const Fd* object = Fd::Unwrap(value.As<Napi::Object>());
  if (!object->fd_) throw CodedError(env, "ERR_CLOSED", "the file descriptor is closed");
  return object->fd_;
}

std::shared_ptr<OwnedFd> TakeFd(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kFdTag)) {
    throw CodedError(value.Env(), "ERR_INVALID_ARG_TYPE", "fd must be an Fd", "fd");
  }
  return std::exchange(Fd::Unwrap(value.As<Napi::Object>())->fd_, nullptr);
}

void InitFd(Napi::Env env, Napi::Object exports) {
  EnvState::Of(env).fd_constructor = Napi::Persistent(Fd::Define(env));
  Export<OpenFd>(exports, "openFd");
  Export<AdoptFd>(exports, "adoptFd");
  Export<DupFd>(exports, "dupFd");
  Export<GiveFd>(exports, "giveFd");
  Export<CloseFd>(exports, "closeFd");
  Export<SeekEnd>(exports, "seekEnd");
  Export<StatFd>(exports, "statFd");
}

}  // namespace p2pdma
