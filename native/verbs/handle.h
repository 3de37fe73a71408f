// The JavaScript object of any of them. It has no methods: the functions of
// this addon take it, check what it is of, and refuse it after its close.
#pragma once

#include <errno.h>
#include <napi.h>

#include <functional>
#include <memory>
#include <utility>

#include "library.h"
#include "object.h"
#include "support/error.h"
#include "support/function.h"
#include "support/job.h"

namespace p2pdma::verbs {

class Handle : public Napi::ObjectWrap<Handle> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit Handle(const Napi::CallbackInfo& info);
  ~Handle() override;

 private:
  friend Object::Ptr UseObject(const Napi::Value& value, Kind kind, const char* name);
  friend Object::Ptr AnyObject(const Napi::Value& value);

  Napi::Value Closed(const Napi::CallbackInfo& info);

  Object::Ptr object_;
};

Napi::Object Wrap(Napi::Env env, Object::Ptr object);

// Throws ERR_INVALID_ARG_TYPE for anything else and ERR_CLOSED after its close.
Object::Ptr UseObject(const Napi::Value& value, Kind kind, const char* name);
// Of any kind, open or not.
Object::Ptr AnyObject(const Napi::Value& value);

template <typename T>
std::shared_ptr<T> Use(const Napi::Value& value, const char* name) {
  return std::static_pointer_cast<T>(UseObject(value, T::kKind, name));
}

template <typename T>
std::shared_ptr<T> UseOrNull(const Napi::Value& value, const char* name) {
  return value.IsNull() ? nullptr : Use<T>(value, name);
}

// The same, for a call on another thread: it does not close meanwhile.
template <typename T>
Lease<T> Borrow(const Napi::Value& value, const char* name) {
  return Lease<T>(Use<T>(value, name));
}

// A call that makes an object, or fails with an errno (positive). Runs once, on any thread.
template <typename T>
using Making = std::function<int(std::shared_ptr<T>*)>;

// Gives what a call has made (null: errno says why not) its owner, or back where
// there is no memory for one. Of `undo`, what fails is the kernel's to take back.
template <typename T, typename Raw, typename Undo, typename... Arguments>
int Own(std::shared_ptr<T>* out, Raw* raw, Undo undo, Arguments&&... arguments) {
  if (raw == nullptr) return errno == 0 ? EIO : errno;
  const int error = GuardedErrno([&] {
    *out = std::make_shared<T>(std::forward<Arguments>(arguments)...);
    return 0;
  });
  if (error != 0) undo(raw);
  return error;
}

// For what makes the first object of a library: opens it. ERR_VERBS_MISSING, with the
// loader's words, where that fails. librdmacm's devices are libibverbs'.
void NeedIbv(Napi::Env env);
void NeedRdma(Napi::Env env);

[[noreturn]] void ThrowTooOld(Napi::Env env, const char* name, const char* version);

// A function that not every version of a library has; ERR_VERBS_TOO_OLD where this one has not.
template <typename Call>
Call Newer(Napi::Env env, const Later<Call>& later) {
  if (later.call == nullptr) ThrowTooOld(env, later.name, later.version);
  return later.call;
}

template <typename T>
class MakeJob : public Job {
 public:
  MakeJob(const char* name, Making<T> make) : name_(name), make_(std::move(make)) {}
  // Where the environment has ended meanwhile, nobody took it: then its destructor closes it.
  void Run() override {
    error_ = GuardedErrno([&] { return make_(&made_); });
    // What was borrowed for the call.
    make_ = nullptr;
  }
  Napi::Value Result(Napi::Env env) override {
    if (error_ != 0) throw SystemError(env, error_, name_);
    return Describe(env, std::move(made_));
  }

 private:
  const char* const name_;
  Making<T> make_;
  std::shared_ptr<T> made_;
  int error_ = 0;
};

// Each class has a `Describe(env, object)`: the handle, with what is known of it.
template <typename T>
Napi::Value StartMaking(Napi::Env env, const char* name, Making<T> make) {
  return StartJob(env, std::make_unique<MakeJob<T>>(name, std::move(make)), name);
}

template <typename T>
Napi::Value MakeNow(Napi::Env env, const char* name, const Making<T>& make) {
  std::shared_ptr<T> made;
  const int error = GuardedErrno([&] { return make(&made); });
  if (error != 0) throw SystemError(env, error, name);
  return Describe(env, std::move(made));
}

}  // namespace p2pdma::verbs
