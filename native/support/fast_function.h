// Functions of plain objects, which own the native side: nothing is unwrapped
// from `this`.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

namespace p2pdma {

// Sets a function that owns what the callback has captured.
template <typename Callback>
void Set(Napi::Object target, const char* name, Callback callback) {
  target.Set(name, Napi::Function::New(target.Env(), std::move(callback), name));
}

// For a batch path, without arguments and result: sets a function that owns
// `owner`, and finds it as a std::shared_ptr<T>* in its data. Napi::Function
// would cost twice the time.
template <typename T>
void SetFast(Napi::Env env, Napi::Object target, const char* name, napi_callback callback,
             const std::shared_ptr<T>& owner) {
  using Owner = std::shared_ptr<T>;
  auto owned = std::make_unique<Owner>(owner);
  napi_value function = nullptr;
  napi_status status =
      napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, owned.get(), &function);
  if (status == napi_ok) {
    status = napi_add_finalizer(
        env, function, owned.get(),
        [](napi_env, void* data, void*) { delete static_cast<Owner*>(data); }, nullptr, nullptr);
  }
  if (status != napi_ok) throw Napi::Error::New(env);
  static_cast<void>(owned.release());
  target.Set(name, Napi::Value(env, function));
}

// The owner of the fast function that is being called.
template <typename T>
T& FastOwner(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  return **static_cast<std::shared_ptr<T>*>(data);
}

}  // namespace p2pdma
