#include "support/job.h"

#include <utility>

#include "support/error.h"

namespace p2pdma {

namespace {

struct Pending {
  std::unique_ptr<Job> job;
  napi_deferred deferred = nullptr;
  napi_async_work work = nullptr;
};

void Execute(napi_env, void* data) { static_cast<Pending*>(data)->job->Run(); }

// Plain C calls with their status ignored: in an environment that is being
// torn down JavaScript cannot run, and there is nobody left to be told.
void Complete(napi_env raw, napi_status status, void* data) {
  const std::unique_ptr<Pending> pending(static_cast<Pending*>(data));
  const Napi::Env env(raw);
  const Napi::HandleScope scope(env);
  try {
    if (status != napi_ok) throw CodedError(env, "ERR_CLOSED", "the environment is closing");
    napi_resolve_deferred(raw, pending->deferred, pending->job->Result(env));
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
  napi_value promise = nullptr;
  NAPI_THROW_IF_FAILED(env, napi_create_promise(env, &pending->deferred, &promise), Napi::Value());
  NAPI_THROW_IF_FAILED(env,
                       napi_create_async_work(env, nullptr, Napi::String::New(env, name), Execute,
                                              Complete, pending.get(), &pending->work),
                       Napi::Value());
  const napi_status queued = napi_queue_async_work(env, pending->work);
  if (queued != napi_ok) {
    napi_delete_async_work(env, pending->work);
    throw Napi::Error::New(env);
  }
  static_cast<void>(pending.release());
  return Napi::Value(env, promise);
}

}  // namespace p2pdma
