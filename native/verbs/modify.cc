// ibv_modify_qp(3), ibv_query_qp(3), address handles.
#include <errno.h>

#include "handle.h"
#include "objects.h"
#include "qp_attr.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

Napi::Value Describe(Napi::Env env, std::shared_ptr<AddressHandle> address) {
  address->domain()->address_handles.Add(address->id(), address);
  const uint32_t id = address->id();
  Napi::Object handle = Wrap(env, std::move(address));
  handle.Set("id", static_cast<double>(id));
  return handle;
}

namespace {

Napi::Object ObjectArg(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsObject()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be an object",
                     name);
  }
  return info[index].As<Napi::Object>();
}

struct ModifyRequest {
  Lease<QueuePair> pair;
  ibv_qp_attr attr = {};
  int mask = 0;

  explicit ModifyRequest(const Napi::CallbackInfo& info)
      : pair(Borrow<QueuePair>(info[0], "qp")),
        mask(ReadQpAttr(ObjectArg(info, 1, "attributes"), &attr)) {}
  int Run() const {
    ibv_qp_attr request = attr;
    return ibv.modify_qp(pair->get(), &request, mask);
  }
};

// verbsModifyQp(qp, attributes): a promise
Napi::Value Modify(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "ibv_modify_qp",
                      [request = ModifyRequest(info)] { return -request.Run(); });
}

// verbsModifyQpNow(qp, attributes): on the event loop
Napi::Value ModifyNow(const Napi::CallbackInfo& info) {
  const int error = ModifyRequest(info).Run();
  if (error != 0) throw SystemError(info.Env(), error, "ibv_modify_qp");
  return info.Env().Undefined();
}

// verbsQueryQp(qp): all of it, and `sqDraining`
Napi::Value Query(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto pair = Use<QueuePair>(info[0], "qp");
  ibv_qp_attr attr = {};
  ibv_qp_init_attr init = {};
  // Every bit that libibverbs knows, but for what only some transports have.
  const int all = IBV_QP_STATE | IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX |
                  IBV_QP_PORT | IBV_QP_QKEY | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_TIMEOUT |
                  IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_RQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC |
                  IBV_QP_MIN_RNR_TIMER | IBV_QP_SQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_CAP |
                  IBV_QP_DEST_QPN;
  const int error = ibv.query_qp(pair->get(), &attr, all, &init);
  if (error != 0) throw SystemError(env, error, "ibv_query_qp");
  Napi::Object result = QpAttrObject(env, attr, all);
  result.Set("sqDraining", Napi::Boolean::New(env, attr.sq_draining != 0));
  return result;
}

// verbsCreateAh(pd, ahAttr): a promise of an address handle
Napi::Value CreateAh(const Napi::CallbackInfo& info) {
  auto domain = Borrow<ProtectionDomain>(info[0], "pd");
  ibv_ah_attr attr = {};
  ReadAhAttr(ObjectArg(info, 1, "ahAttr"), &attr);
  return StartMaking<AddressHandle>(
      info.Env(), "ibv_create_ah",
      [domain = std::move(domain), attr](std::shared_ptr<AddressHandle>* out) {
        ibv_ah_attr request = attr;
        ibv_ah* const ah = ibv.create_ah(domain->get(), &request);
        return Own(out, ah, ibv.destroy_ah, domain.object(), ah);
      });
}

}  // namespace

void InitModify(Napi::Env, Napi::Object exports) {
  Export<Modify>(exports, "verbsModifyQp");
  Export<ModifyNow>(exports, "verbsModifyQpNow");
  Export<Query>(exports, "verbsQueryQp");
  Export<CreateAh>(exports, "verbsCreateAh");
}

}  // namespace p2pdma::verbs
