// Errors as Node's own system errors are: `code`, negative `errno`, `syscall`.
#pragma once

#include <napi.h>

#include <string>

namespace p2pdma {

// The error for a system call that set errno to `error` (positive).
Napi::Error SystemError(Napi::Env env, int error, const char* syscall);

// An error of ours, for instance ERR_CLOSED; `argument` may be empty.
Napi::Error CodedError(Napi::Env env, const char* code, const std::string& message,
                       const std::string& argument = "");

}  // namespace p2pdma
