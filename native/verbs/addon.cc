// Entry point of the second addon, which is built only where the headers of libibverbs
// are. It takes the first one's Fd and Mapping objects: their type tags
// and classes are compiled into both.
#include <napi.h>

#include "support/guard.h"
#include "verbs/init.h"

namespace {

Napi::Object InitAll(Napi::Env env, Napi::Object exports) {
  p2pdma::verbs::InitHandle(env, exports);
  p2pdma::verbs::InitDevice(env, exports);
  p2pdma::verbs::InitMemory(env, exports);
  p2pdma::verbs::InitWindow(env, exports);
  p2pdma::verbs::InitCompletion(env, exports);
  p2pdma::verbs::InitQueuePair(env, exports);
  p2pdma::verbs::InitModify(env, exports);
  p2pdma::verbs::InitReceive(env, exports);
  p2pdma::verbs::InitPost(env, exports);
  p2pdma::verbs::InitWork(env, exports);
  p2pdma::verbs::InitEvents(env, exports);
  p2pdma::verbs::InitColumns(env, exports);
  p2pdma::verbs::InitCm(env, exports);
  p2pdma::verbs::InitCmEvents(env, exports);
  return exports;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return p2pdma::Guarded(env, [&] { return InitAll(env, exports); });
}

}  // namespace

NODE_API_MODULE(p2pdma_verbs, Init)
