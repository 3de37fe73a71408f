// The one way by which C++'s own exceptions leave native code: as an error with
// a code. Nothing else may be thrown through Node's frames, which end the process.
#pragma once

#include <napi.h>

#include <utility>

namespace p2pdma {

// In a handler: throws what is being handled as a Napi::Error. std::bad_alloc and
// std::length_error are ENOMEM, std::system_error is its own errno.
[[noreturn]] void RethrowAsError(Napi::Env env);

// As `work`, on the event loop.
template <typename Work>
auto Guarded(Napi::Env env, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (...) {
    RethrowAsError(env);
  }
}

// The errno of what is being handled, on a thread without JavaScript.
int HandledErrno();

// As `work`, which returns an errno, on such a thread; there, C++'s exceptions are errnos too.
template <typename Work>
int GuardedErrno(Work&& work) {
  try {
    return work();
  } catch (...) {
    return HandledErrno();
  }
}

// Where JavaScript has called nobody: an 'uncaughtException', as of a callback.
void ReportHandled(Napi::Env env);

}  // namespace p2pdma
