#include "support/error.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

namespace p2pdma {

namespace {

const char* ErrnoName(int error) {
#ifdef __GLIBC__
  // libuv has no name for EBADFD and its like.
  if (const char* name = strerrorname_np(error)) return name;
#endif
  return uv_err_name(-error);
}

}  // namespace

// Without an allocation: it says ENOMEM, too.
Napi::Error SystemError(Napi::Env env, int error, const char* syscall) {
  const char* const code = ErrnoName(error);
  char message[256];
  snprintf(message, sizeof(message), "%s: %s, %s", code, uv_strerror(-error), syscall);
  Napi::Error result = Napi::Error::New(env, message);
  result.Set("code", code);
  result.Set("errno", static_cast<double>(-error));
  result.Set("syscall", syscall);
  return result;
}

Napi::Error CodedError(Napi::Env env, const char* code, const std::string& message,
                       const std::string& argument) {
  Napi::Error result = Napi::Error::New(env, message);
  result.Set("code", code);
  if (!argument.empty()) result.Set("argument", argument);
  return result;
}

}  // namespace p2pdma
