// Entry point: one Init function per file. Loaded once per environment; there
// is no process-wide state.
#include <napi.h>

#include "init.h"
#include "ring/js.h"
#include "software/software.h"
#include "support/guard.h"

namespace {

Napi::Object InitAll(Napi::Env env, Napi::Object exports) {
  p2pdma::InitFd(env, exports);
  p2pdma::InitMapping(env, exports);
  p2pdma::InitMemoryJobs(env, exports);
  p2pdma::InitPoll(env, exports);
  p2pdma::InitMemfd(env, exports);
  p2pdma::InitDmaBuf(env, exports);
  p2pdma::InitSyncFile(env, exports);
  p2pdma::InitUdmabuf(env, exports);
  p2pdma::InitDmaHeap(env, exports);
  p2pdma::InitDrm(env, exports);
  p2pdma::InitEventfd(env, exports);
  p2pdma::InitRegisters(env, exports);
  p2pdma::InitIommufd(env, exports);
  p2pdma::InitVfioContainer(env, exports);
  p2pdma::InitVfioDevice(env, exports);
  p2pdma::InitStamp(env, exports);
  p2pdma::InitRing(env, exports);
  p2pdma::InitSoftware(env, exports);
  return exports;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return p2pdma::Guarded(env, [&] { return InitAll(env, exports); });
}

}  // namespace

NODE_API_MODULE(p2pdma, Init)
