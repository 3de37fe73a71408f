// Memory windows: ibv_alloc_mw(3), ibv_bind_mw(3); of type 2 a work request binds.
#include <errno.h>

#include "handle.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "taken.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

Napi::Value Describe(Napi::Env env, std::shared_ptr<MemoryWindow> window) {
  const uint32_t rkey = window->get()->rkey;
  Napi::Object handle = Wrap(env, std::move(window));
  handle.Set("rkey", static_cast<double>(rkey));
  return handle;
}

namespace {

// verbsAllocMw(pd, type): a promise
Napi::Value Alloc(const Napi::CallbackInfo& info) {
  const auto type = static_cast<ibv_mw_type>(Uint32Arg(info, 1, "type", 2));
  return StartMaking<MemoryWindow>(
      info.Env(), "ibv_alloc_mw",
      [domain = Borrow<ProtectionDomain>(info[0], "pd"), type](std::shared_ptr<MemoryWindow>* out) {
        ibv_mw* const mw = ibv_alloc_mw(domain->get(), type);
        return Own(out, mw, ibv_dealloc_mw, domain.object(), mw);
      });
}

// verbsBindMw(qp, mw, mr, address, length, access, rkey, wrId, flags): posts it;
// returns the window's rkey once that has completed. `rkey` counts for type 2.
// A length of 0 unbinds (type 1).
Napi::Value Bind(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto pair = Use<QueuePair>(info[0], "qp");
  const auto window = Use<MemoryWindow>(info[1], "mw");
  const auto region = Use<MemoryRegion>(info[2], "mr");
  if (region->get() == nullptr) {
    throw CodedError(env, "ERR_UNSUPPORTED",
                     "A region that only the kernel knows has no memory windows", "mr");
  }
  ibv_mw_bind_info bind = {};
  bind.mr = region->get();
  bind.addr = UintArg(info, 3, "address");
  bind.length = UintArg(info, 4, "length");
  bind.mw_access_flags = Uint32Arg(info, 5, "access");
  const uint32_t rkey = Uint32Arg(info, 6, "rkey");
  const uint64_t id = UintArg(info, 7, "wrId");
  const uint32_t flags = Uint32Arg(info, 8, "flags");
  if (window->get()->type == IBV_MW_TYPE_1) {
    ibv_mw_bind request = {};
    request.wr_id = id;
    request.send_flags = flags;
    request.bind_info = bind;
    errno = 0;
    const int error = Refusal(ibv_bind_mw(pair->get(), window->get(), &request));
    if (error != 0) throw SystemError(env, error, "ibv_bind_mw");
    return Napi::Number::New(env, window->get()->rkey);
  }
  ibv_send_wr request = {};
  request.wr_id = id;
  request.opcode = IBV_WR_BIND_MW;
  request.send_flags = flags;
  request.bind_mw.mw = window->get();
  request.bind_mw.rkey = rkey;
  request.bind_mw.bind_info = bind;
  ibv_send_wr* bad = nullptr;
  errno = 0;
  const int error = Refusal(ibv_post_send(pair->get(), &request, &bad));
  if (error != 0) throw SystemError(env, error, "ibv_post_send");
  // It is the application's to note which key it chose (ibv_bind_mw(3)).
  window->get()->rkey = rkey;
  return Napi::Number::New(env, rkey);
}

}  // namespace

void InitWindow(Napi::Env, Napi::Object exports) {
  Export<Alloc>(exports, "verbsAllocMw");
  Export<Bind>(exports, "verbsBindMw");
}

}  // namespace p2pdma::verbs
