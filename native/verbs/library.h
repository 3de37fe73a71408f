// libibverbs and librdmacm, opened at run time and never linked, so that one build of
// this addon serves machines with and without them. What verbs.h and rdma_cma.h do
// inline is called as ever: the posts and polls go by the context's own operations.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <string>

namespace p2pdma::verbs {

// ALWAYS(prefix, name, version): any library that is still about has it. LATER(...): an
// older one may lack it. `version` is the symbol's own, since the first versions of some
// names are of another ABI (libibverbs/libibverbs.map.in, librdmacm/librdmacm.map).
#define P2PDMA_IBV_CALLS(ALWAYS, LATER)            \
  ALWAYS(ibv, ack_async_event, "IBVERBS_1.1")      \
  ALWAYS(ibv, ack_cq_events, "IBVERBS_1.1")        \
  ALWAYS(ibv, alloc_pd, "IBVERBS_1.1")             \
  ALWAYS(ibv, close_device, "IBVERBS_1.1")         \
  ALWAYS(ibv, create_ah, "IBVERBS_1.1")            \
  ALWAYS(ibv, create_comp_channel, "IBVERBS_1.0")  \
  ALWAYS(ibv, create_cq, "IBVERBS_1.1")            \
  ALWAYS(ibv, create_qp, "IBVERBS_1.1")            \
  ALWAYS(ibv, create_srq, "IBVERBS_1.1")           \
  ALWAYS(ibv, dealloc_pd, "IBVERBS_1.1")           \
  ALWAYS(ibv, dereg_mr, "IBVERBS_1.1")             \
  ALWAYS(ibv, destroy_ah, "IBVERBS_1.1")           \
  ALWAYS(ibv, destroy_comp_channel, "IBVERBS_1.0") \
  ALWAYS(ibv, destroy_cq, "IBVERBS_1.1")           \
  ALWAYS(ibv, destroy_qp, "IBVERBS_1.1")           \
  ALWAYS(ibv, destroy_srq, "IBVERBS_1.1")          \
  ALWAYS(ibv, free_device_list, "IBVERBS_1.1")     \
  ALWAYS(ibv, get_async_event, "IBVERBS_1.1")      \
  ALWAYS(ibv, get_cq_event, "IBVERBS_1.1")         \
  ALWAYS(ibv, get_device_guid, "IBVERBS_1.1")      \
  ALWAYS(ibv, get_device_list, "IBVERBS_1.1")      \
  ALWAYS(ibv, get_device_name, "IBVERBS_1.1")      \
  ALWAYS(ibv, modify_qp, "IBVERBS_1.1")            \
  ALWAYS(ibv, modify_srq, "IBVERBS_1.1")           \
  ALWAYS(ibv, open_device, "IBVERBS_1.1")          \
  ALWAYS(ibv, query_device, "IBVERBS_1.1")         \
  ALWAYS(ibv, query_port, "IBVERBS_1.1")           \
  ALWAYS(ibv, query_qp, "IBVERBS_1.1")             \
  LATER(_ibv, query_gid_table, "IBVERBS_1.11")     \
  LATER(ibv, reg_dmabuf_mr, "IBVERBS_1.12")        \
  LATER(ibv, reg_mr_iova2, "IBVERBS_1.8")

#define P2PDMA_RDMA_CALLS(ALWAYS, LATER)            \
  ALWAYS(rdma, accept, "RDMACM_1.0")                \
  ALWAYS(rdma, ack_cm_event, "RDMACM_1.0")          \
  ALWAYS(rdma, bind_addr, "RDMACM_1.0")             \
  ALWAYS(rdma, connect, "RDMACM_1.0")               \
  ALWAYS(rdma, create_event_channel, "RDMACM_1.0")  \
  ALWAYS(rdma, create_id, "RDMACM_1.0")             \
  ALWAYS(rdma, destroy_event_channel, "RDMACM_1.0") \
  ALWAYS(rdma, destroy_id, "RDMACM_1.0")            \
  ALWAYS(rdma, disconnect, "RDMACM_1.0")            \
  ALWAYS(rdma, get_cm_event, "RDMACM_1.0")          \
  ALWAYS(rdma, get_dst_port, "RDMACM_1.0")          \
  ALWAYS(rdma, get_src_port, "RDMACM_1.0")          \
  ALWAYS(rdma, listen, "RDMACM_1.0")                \
  ALWAYS(rdma, reject, "RDMACM_1.0")                \
  ALWAYS(rdma, resolve_addr, "RDMACM_1.0")          \
  ALWAYS(rdma, resolve_route, "RDMACM_1.0")         \
  LATER(rdma, establish, "RDMACM_1.2")              \
  LATER(rdma, init_qp_attr, "RDMACM_1.2")

// Null where this machine's library is older: Newer() of handle.h says so.
template <typename Call>
struct Later {
  Call call;
  const char* name;
  const char* version;
};

#define P2PDMA_ALWAYS(prefix, name, version) decltype(&::prefix##_##name) name = nullptr;
#define P2PDMA_LATER(prefix, name, version) \
  Later<decltype(&::prefix##_##name)> name = {nullptr, #prefix "_" #name, version};

struct IbvCalls {
  P2PDMA_IBV_CALLS(P2PDMA_ALWAYS, P2PDMA_LATER)
};

struct RdmaCalls {
  P2PDMA_RDMA_CALLS(P2PDMA_ALWAYS, P2PDMA_LATER)
};

#undef P2PDMA_ALWAYS
#undef P2PDMA_LATER

// Not to be called before they are open: whoever makes the first object of a library
// opens it, and every other call takes such an object.
extern IbvCalls ibv;
extern RdmaCalls rdma;

// Each may be called on any thread, and again after it has failed. Empty, or why it
// cannot be opened, in the loader's words. None is ever closed: its providers stay loaded.
std::string OpenIbv();
std::string OpenRdma();

}  // namespace p2pdma::verbs
