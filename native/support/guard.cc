#include "support/guard.h"

#include <errno.h>

#include <exception>
#include <new>
#include <stdexcept>
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

}  // namespace

void RethrowAsError(Napi::Env env) {
  const int error = ErrnoOfHandled();
  if (error == ENOMEM) throw SystemError(env, error, "malloc");
  if (error != 0) throw SystemError(env, error, "pthread_create");
  try {
    throw;
  } catch (const Napi::Error&) {
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
