// One blocking call off the event loop, with a promise. Node waits for jobs
// that run when an environment ends, so a job is short; what is long is cut
// into many of them by the caller.
#pragma once

#include <napi.h>

#include <memory>

namespace p2pdma {

class Job {
 public:
  virtual ~Job() = default;
  // In the thread pool; no JavaScript. What C++ throws rejects the promise.
  virtual void Run() = 0;
  // On the event loop; returns the promise's value, or throws what rejects it.
  virtual Napi::Value Result(Napi::Env env) = 0;
};

Napi::Value StartJob(Napi::Env env, std::unique_ptr<Job> job, const char* name);

}  // namespace p2pdma
