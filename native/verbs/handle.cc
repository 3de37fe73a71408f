#include "handle.h"

#include <string>

#include "support/env_state.h"
#include "support/syscall_job.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

namespace {

constexpr napi_type_tag kHandleTag = {0x2f6b1c7d90e84a53, 0x8d3e5a1b74c9f206};

Handle* Tagged(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kHandleTag)) return nullptr;
  return Handle::Unwrap(value.As<Napi::Object>());
}

// verbsClose(handle): a promise; nothing where it is closed already, or being closed
Napi::Value Close(const Napi::CallbackInfo& info) {
  const Object::Ptr object = AnyObject(info[0]);
  const bool first = object->Begin();
  return StartSyscall(info.Env(), KindName(object->kind()),
                      [object, first] { return first ? -object->Close() : 0; });
}

// verbsCloseNow(handle): on the event loop
Napi::Value CloseNow(const Napi::CallbackInfo& info) {
  const Object::Ptr object = AnyObject(info[0]);
  const int error = object->Begin() ? object->Close() : 0;
  if (error != 0) throw SystemError(info.Env(), error, KindName(object->kind()));
  return info.Env().Undefined();
}

void NeedOpen(Napi::Env env, const char* file, const std::string& why_not) {
  if (why_not.empty()) return;
  throw CodedError(env, "ERR_VERBS_MISSING",
                   std::string(file) + " could not be opened (" + why_not + ")");
}

template <void (*need)(Napi::Env)>
Napi::Value Need(const Napi::CallbackInfo& info) {
  need(info.Env());
  return info.Env().Undefined();
}

}  // namespace

void NeedIbv(Napi::Env env) { NeedOpen(env, "libibverbs.so.1", OpenIbv()); }

void NeedRdma(Napi::Env env) {
  NeedIbv(env);
  NeedOpen(env, "librdmacm.so.1", OpenRdma());
}

void ThrowTooOld(Napi::Env env, const char* name, const char* version) {
  Napi::Error error = CodedError(env, "ERR_VERBS_TOO_OLD",
                                 std::string("The library of this machine has no ") + name +
                                     ": a newer rdma-core has (" + version + ")");
  error.Set("syscall", name);
  throw error;
}

Handle::Handle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Handle>(info) {
  if (!info[0].IsExternal()) {
    throw CodedError(info.Env(), "ERR_ILLEGAL_CONSTRUCTOR", "Handle has no public constructor");
  }
  object_ = *info[0].As<Napi::External<Object::Ptr>>().Data();
  info.This().As<Napi::Object>().TypeTag(&kHandleTag);
}

Handle::~Handle() {
  if (object_ != nullptr) Reap(std::move(object_));
}

Napi::Function Handle::Define(Napi::Env env) {
  return DefineClass(env, "VerbsHandle", {InstanceAccessor<&Handle::Closed>("closed")});
}

Napi::Value Handle::Closed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), object_ == nullptr || !object_->open());
}

Napi::Object Wrap(Napi::Env env, Object::Ptr object) {
  return EnvState::Of(env).handle_constructor.New({Napi::External<Object::Ptr>::New(env, &object)});
}

Object::Ptr AnyObject(const Napi::Value& value) {
  const Handle* const handle = Tagged(value);
  if (handle == nullptr || handle->object_ == nullptr) {
    throw CodedError(value.Env(), "ERR_INVALID_ARG_TYPE", "handle must be one of this addon's",
                     "handle");
  }
  return handle->object_;
}

Object::Ptr UseObject(const Napi::Value& value, Kind kind, const char* name) {
  const Handle* const handle = Tagged(value);
  if (handle == nullptr || handle->object_ == nullptr || handle->object_->kind() != kind) {
    throw CodedError(value.Env(), "ERR_INVALID_ARG_TYPE",
                     std::string(name) + " must be a " + KindName(kind), name);
  }
  if (!handle->object_->open()) {
    throw CodedError(value.Env(), "ERR_CLOSED",
                     std::string("The ") + KindName(kind) + " is closed");
  }
  return handle->object_;
}

void InitHandle(Napi::Env env, Napi::Object exports) {
  EnvState::Of(env).handle_constructor = Napi::Persistent(Handle::Define(env));
  Export<Close>(exports, "verbsClose");
  Export<CloseNow>(exports, "verbsCloseNow");
  Export<Need<NeedIbv>>(exports, "verbsNeedIbv");
  Export<Need<NeedRdma>>(exports, "verbsNeedRdma");
}

}  // namespace p2pdma::verbs
