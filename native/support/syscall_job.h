// A system call that may block, as a job. The function returns what the call
// did: a value of 0 or more, or a negative errno.
#pragma once

#include <napi.h>

#include <functional>

namespace p2pdma {

using Syscall = std::function<int()>;

// The promise resolves with nothing.
Napi::Value StartSyscall(Napi::Env env, const char* name, Syscall call);

// The call's value is a new descriptor; the promise resolves with an Fd.
Napi::Value StartFdSyscall(Napi::Env env, const char* name, Syscall call);

}  // namespace p2pdma
