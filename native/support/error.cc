#include "support/error.h"

#include <string.h>
#include <uv.h>

namespace p2pdma {

namespace {

std::string ErrnoName(int error) {
#ifdef __GLIBC__
  // libuv has no name for EBADFD and its like.
  if (const char* name = strerrorname_np(error)) return name;
#endif
  return uv_err_name(-error);
}

}  // namespace

Napi::Error SystemError(Napi::Env env, int error, const char* syscall) {
  const std::string code = ErrnoName(error);
  Napi::Error result =
      Napi::Error::New(env, code + ": " + uv_strerror(-error) + ", " + std::string(syscall));
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
