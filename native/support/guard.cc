#include "support/guard.h"

#include <errno.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "support/error.h"

namespace p2pdma {

namespace {

// 0 where it is none of C++'s own that has one.
int ErrnoOfHandled() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  } catch (const std::length_error&) {
    return ENOMEM;
  } catch (const std::system_error& error) {
    return error.code().value();
  } catch (...) {
    return 0;
  }
}

// A constructor of Napi::ObjectWrap's tells of it by the message alone.
bool IsBadAlloc(const Napi::Error& error) {
  if (error.IsEmpty()) return false;
  constexpr std::string_view kWhat = "std::bad_alloc";
  char text[kWhat.size() + 2];
  size_t length = 0;
  napi_value message = nullptr;
  return napi_get_named_property(error.Env(), error.Value(), "message", &message) == napi_ok &&
         napi_get_value_string_utf8(error.Env(), message, text, sizeof(text), &length) == napi_ok &&
         std::string_view(text, length) == kWhat;
}

}  // namespace

void RethrowAsError(Napi::Env env) {
  const int error = ErrnoOfHandled();
  if (error == ENOMEM) throw SystemError(env, error, "malloc");
  if (error != 0) throw SystemError(env, error, "pthread_create");
  try {
    throw;
  } catch (const Napi::Error& other) {
    if (IsBadAlloc(other)) throw SystemError(env, ENOMEM, "malloc");
    throw;
  } catch (const std::exception& other) {
    throw CodedError(env, "ERR_INTERNAL_ASSERTION", other.what());
  }
}

int HandledErrno() {
  const int error = ErrnoOfHandled();
  return error == 0 ? EIO : error;
}

void ReportHandled(Napi::Env env) {
  try {
    RethrowAsError(env);
  } catch (const Napi::Error& error) {
    // Empty: the environment runs no JavaScript any more.
    if (!error.IsEmpty()) napi_fatal_exception(env, error.Value());
  } catch (...) {
    // There is no memory to say so with.
  }
}

}  // namespace p2pdma
