// Shared receive queues: ibv_create_srq(3), ibv_modify_srq(3).
#include <errno.h>

#include "handle.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

Napi::Value Describe(Napi::Env env, std::shared_ptr<SharedReceiveQueue> srq) {
  const uint32_t depth = srq->depth;
  Napi::Object handle = Wrap(env, std::move(srq));
  handle.Set("maxReceiveWr", static_cast<double>(depth));
  return handle;
}

namespace {

// What an event says it is of: a number of the caller's, in the context pointer.
void* NumberAsContext(uint32_t number) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>(number));
}

// verbsCreateSrq(pd, maxReceiveWr, number): a promise
Napi::Value Create(const Napi::CallbackInfo& info) {
  ibv_srq_init_attr init = {};
  init.attr.max_wr = Uint32Arg(info, 1, "maxReceiveWr");
  init.attr.max_sge = 1;
  init.srq_context = NumberAsContext(Uint32Arg(info, 2, "number"));
  return StartMaking<SharedReceiveQueue>(
      info.Env(), "ibv_create_srq",
      [domain = Borrow<ProtectionDomain>(info[0], "pd"),
       init](std::shared_ptr<SharedReceiveQueue>* out) {
        ibv_srq_init_attr request = init;
        ibv_srq* const srq = ibv.create_srq(domain->get(), &request);
        return Own(out, srq, ibv.destroy_srq, domain.object(), srq, request.attr.max_wr);
      });
}

// verbsSetSrqLimit(srq, limit): an event comes when fewer are left
Napi::Value SetLimit(const Napi::CallbackInfo& info) {
  const auto srq = Use<SharedReceiveQueue>(info[0], "srq");
  ibv_srq_attr attr = {};
  attr.srq_limit = Uint32Arg(info, 1, "limit");
  const int error = ibv.modify_srq(srq->get(), &attr, IBV_SRQ_LIMIT);
  if (error != 0) throw SystemError(info.Env(), error, "ibv_modify_srq");
  return info.Env().Undefined();
}

}  // namespace

void InitReceive(Napi::Env, Napi::Object exports) {
  Export<Create>(exports, "verbsCreateSrq");
  Export<SetLimit>(exports, "verbsSetSrqLimit");
}

}  // namespace p2pdma::verbs
