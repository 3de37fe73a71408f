#include "support/job.h"

#include <utility>

#include "support/error.h"
#include "support/guard.h"

namespace p2pdma {

namespace {

struct Pending {
  std::unique_ptr<Job> job;
  napi_deferred deferred = nullptr;
  napi_async_work work = nullptr;
  // Of an exception of C++'s; 0: none.
  int error = 0;
};

void Execute(napi_env, void* data) {
  auto* const pending = static_cast<Pending*>(data);
  pending->error = GuardedErrno([&] {
    pending->job->Run();
    return 0;
  });
}

Napi::Value ResultOf(Napi::Env env, napi_status status, const Pending& pending) {
  if (status != napi_ok) throw CodedError(env, "ERR_CLOSED", "the environment is closing");
  if (pending.error != 0) throw SystemError(env, pending.error, "malloc");
  return pending.job->Result(env);
}

// Plain C calls with their status ignored: in an environment that is being
// torn down JavaScript cannot run, and there is nobody left to be told.
void Complete(napi_env raw, napi_status status, void* data) {
  const std::unique_ptr<Pending> pending(static_cast<Pending*>(data));
  const Napi::Env env(raw);
  const Napi::HandleScope scope(env);
  try {
    napi_resolve_deferred(raw, pending->deferred,
                          Guarded(env, [&] { return ResultOf(env, status, *pending); }));
  } catch (const Napi::Error& error) {
    try {
      napi_reject_deferred(raw, pending->deferred, error.Value());
    } catch (const Napi::Error&) {
    }
  }
  napi_delete_async_work(raw, pending->work);
}

}  // namespace

Napi::Value StartJob(Napi::Env env, std::unique_ptr<Job> job, const char* name) {
  auto pending = std::make_unique<Pending>();
  pending->job = std::move(job);
  NAPI_THROW_IF_FAILED(env,
                       napi_create_async_work(env, nullptr, Napi::String::New(env, name), Execute,
                                              Complete, pending.get(), &pending->work),
                       Napi::Value());
  napi_value promise = nullptr;
  napi_status status = napi_create_promise(env, &pending->deferred, &promise);
  if (status == napi_ok) status = napi_queue_async_work(env, pending->work);
  if (status != napi_ok) {
    napi_delete_async_work(env, pending->work);
    throw Napi::Error::New(env);
  }
  static_cast<void>(pending.release());
  return Napi::Value(env, promise);
}

}  // namespace p2pdma
