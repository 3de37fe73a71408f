// How JavaScript gets functions: each is guarded (guard.h), and made nowhere
// else. Those of plain objects own the native side: nothing is unwrapped from `this`.
#pragma once

#include <napi.h>

#include <memory>
#include <type_traits>
#include <utility>

#include "support/guard.h"

namespace p2pdma {

// What `work` returns, or what it threw as a JavaScript exception: the end of every
// callback. Not Napi::Function's: it allocates before it calls.
template <typename Work>
napi_value Answer(napi_env env, Work&& work) {
  try {
    return Guarded(env, [&]() -> napi_value {
      if constexpr (std::is_void_v<decltype(work())>) {
        work();
        return nullptr;
      } else {
        return work();
      }
    });
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
    return nullptr;
  }
}

template <typename Data>
Data& DataOf(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  return *static_cast<Data*>(data);
}

// A function that owns `data`, which its callback finds by DataOf().
template <typename Data>
Napi::Function FunctionWith(Napi::Env env, const char* name, napi_callback callback, Data data) {
  auto owned = std::make_unique<Data>(std::move(data));
  napi_value function = nullptr;
  napi_status status =
      napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, owned.get(), &function);
  if (status == napi_ok) {
    status = napi_add_finalizer(
        env, function, owned.get(),
        [](napi_env, void* mine, void*) { delete static_cast<Data*>(mine); }, nullptr, nullptr);
  }
  if (status != napi_ok) throw Napi::Error::New(env);
  static_cast<void>(owned.release());
  return Napi::Function(env, function);
}

// Sets a function of an addon's exports.
template <auto callback>
void Export(Napi::Object exports, const char* name) {
  const napi_callback raw = [](napi_env env, napi_callback_info info) {
    return Answer(env, [&] { return callback(Napi::CallbackInfo(env, info)); });
  };
  napi_value function = nullptr;
  const Napi::Env env = exports.Env();
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, raw, nullptr, &function) != napi_ok) {
    throw Napi::Error::New(env);
  }
  exports.Set(name, Napi::Value(env, function));
}

// Sets a function that owns what the callback has captured.
template <typename Callback>
void Set(Napi::Object target, const char* name, Callback callback) {
  const napi_callback raw = [](napi_env env, napi_callback_info info) {
    return Answer(env, [&] { return DataOf<Callback>(env, info)(Napi::CallbackInfo(env, info)); });
  };
  target.Set(name, FunctionWith(target.Env(), name, raw, std::move(callback)));
}

// For a batch path, without arguments and result: sets a function that owns
// `owner`, and calls `callback` with it. Arguments would cost twice the time.
template <auto callback, typename T>
void SetFast(Napi::Env env, Napi::Object target, const char* name,
             const std::shared_ptr<T>& owner) {
  const napi_callback raw = [](napi_env each, napi_callback_info info) {
    return Answer(each, [&] { callback(*DataOf<std::shared_ptr<T>>(each, info)); });
  };
  target.Set(name, FunctionWith(env, name, raw, owner));
}

}  // namespace p2pdma
