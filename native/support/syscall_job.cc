#include "support/syscall_job.h"

#include <memory>
#include <utility>

#include "fd.h"
#include "support/error.h"
#include "support/job.h"

namespace p2pdma {

namespace {

class SyscallJob : public Job {
 public:
  SyscallJob(const char* name, Syscall call) : name_(name), call_(std::move(call)) {}

  void Run() override { value_ = call_(); }
  Napi::Value Result(Napi::Env env) override {
    if (value_ < 0) throw SystemError(env, -value_, name_);
    return env.Undefined();
  }

 protected:
  const char* const name_;
  const Syscall call_;
  int value_ = 0;
};

class FdJob : public SyscallJob {
 public:
  using SyscallJob::SyscallJob;

  void Run() override {
    value_ = call_();
    if (value_ >= 0) fd_ = OwnedFd(value_);
  }
  Napi::Value Result(Napi::Env env) override {
    SyscallJob::Result(env);
    return WrapFd(env, std::move(fd_));
  }

 private:
  // Closed with the job where nobody is left to take it.
  OwnedFd fd_;
};

}  // namespace

Napi::Value StartSyscall(Napi::Env env, const char* name, Syscall call) {
  return StartJob(env, std::make_unique<SyscallJob>(name, std::move(call)), name);
}

Napi::Value StartFdSyscall(Napi::Env env, const char* name, Syscall call) {
  return StartJob(env, std::make_unique<FdJob>(name, std::move(call)), name);
}

}  // namespace p2pdma
