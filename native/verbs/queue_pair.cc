// ibv_create_qp(3).
#include <errno.h>

#include "handle.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

Napi::Value Describe(Napi::Env env, std::shared_ptr<QueuePair> pair) {
  const uint32_t number = pair->get()->qp_num;
  const ibv_qp_cap caps = pair->caps();
  Napi::Object handle = Wrap(env, std::move(pair));
  handle.Set("qpNumber", static_cast<double>(number));
  handle.Set("maxSendWr", static_cast<double>(caps.max_send_wr));
  handle.Set("maxReceiveWr", static_cast<double>(caps.max_recv_wr));
  handle.Set("maxInlineData", static_cast<double>(caps.max_inline_data));
  return handle;
}

namespace {

// verbsCreateQp(pd, sendCq, receiveCq, srq | null, type, maxSendWr, maxReceiveWr,
// maxInlineData, signalAll): a promise
Napi::Value Create(const Napi::CallbackInfo& info) {
  auto domain = Borrow<ProtectionDomain>(info[0], "pd");
  auto send_cq = Borrow<CompletionQueue>(info[1], "sendCq");
  auto receive_cq = Borrow<CompletionQueue>(info[2], "receiveCq");
  Lease<SharedReceiveQueue> srq(UseOrNull<SharedReceiveQueue>(info[3], "srq"));
  ibv_qp_init_attr init = {};
  init.qp_type = static_cast<ibv_qp_type>(Uint32Arg(info, 4, "type", UINT8_MAX));
  init.cap.max_send_wr = Uint32Arg(info, 5, "maxSendWr");
  init.cap.max_recv_wr = Uint32Arg(info, 6, "maxReceiveWr");
  init.cap.max_send_sge = 1;
  init.cap.max_recv_sge = 1;
  init.cap.max_inline_data = Uint32Arg(info, 7, "maxInlineData");
  init.sq_sig_all = BoolArg(info, 8, "signalAll") ? 1 : 0;
  return StartMaking<QueuePair>(info.Env(), "ibv_create_qp", [=](std::shared_ptr<QueuePair>* out) {
    ibv_qp_init_attr request = init;
    request.send_cq = send_cq->get();
    request.recv_cq = receive_cq->get();
    request.srq = srq.object() == nullptr ? nullptr : srq->get();
    ibv_qp* const qp = ibv.create_qp(domain->get(), &request);
    return Own(out, qp, ibv.destroy_qp, domain.object(), send_cq.object(), receive_cq.object(),
               srq.object(), qp, request.cap);
  });
}

}  // namespace

void InitQueuePair(Napi::Env, Napi::Object exports) { Export<Create>(exports, "verbsCreateQp"); }

}  // namespace p2pdma::verbs
