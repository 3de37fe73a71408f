// How JavaScript gets functions: each is guarded (guard.h), and made nowhere
// else. Those of plain objects own the native side: nothing is unwrapped from `this`.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "support/guard.h"

namespace p2pdma {

template <auto callback>
Napi::Value GuardedCall(const Napi::CallbackInfo& info) {
  return Guarded(info.Env(), [&] { return callback(info); });
}

// Sets a function of an addon's exports.
template <auto callback>
void Export(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<GuardedCall<callback>>(exports.Env(), name));
}

// A function that owns what the callback has captured.
template <typename Callback>
Napi::Function MakeFunction(Napi::Env env, const char* name, Callback callback) {
  return Napi::Function::New(
      env,
      [callback = std::move(callback)](const Napi::CallbackInfo& info) {
        return Guarded(info.Env(), [&] { return callback(info); });
      },
      name);
}

// Sets one.
template <typename Callback>
void Set(Napi::Object target, const char* name, Callback callback) {
  target.Set(name, MakeFunction(target.Env(), name, std::move(callback)));
}

// The owner of the fast function that is being called.
template <typename T>
T& FastOwner(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  return **static_cast<std::shared_ptr<T>*>(data);
}

// For a batch path, without arguments and result: sets a function that owns
// `owner`, and calls `callback` with it. Napi::Function would cost twice the time.
template <auto callback, typename T>
void SetFast(Napi::Env env, Napi::Object target, const char* name,
             const std::shared_ptr<T>& owner) {
  using Owner = std::shared_ptr<T>;
  auto owned = std::make_unique<Owner>(owner);
  const napi_callback guarded = [](napi_env raw, napi_callback_info info) -> napi_value {
    try {
      Guarded(raw, [&] { callback(FastOwner<T>(raw, info)); });
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    }
    return nullptr;
  };
  napi_value function = nullptr;
  napi_status status =
      napi_create_function(env, name, NAPI_AUTO_LENGTH, guarded, owned.get(), &function);
  if (status == napi_ok) {
    status = napi_add_finalizer(
        env, function, owned.get(),
        [](napi_env, void* data, void*) { delete static_cast<Owner*>(data); }, nullptr, nullptr);
  }
  if (status != napi_ok) throw Napi::Error::New(env);
  static_cast<void>(owned.release());
  target.Set(name, Napi::Value(env, function));
}

}  // namespace p2pdma
