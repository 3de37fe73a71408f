#include "ioctl.h"

#include <errno.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstring>

namespace p2pdma::verbs {

namespace {

// One request, built field by field. Values of up to 8 bytes are inline.
class Request {
 public:
  Request(uint32_t driver, uint16_t object, uint16_t method) {
    memset(&memory_, 0, sizeof(memory_));
    memory_.header.driver_id = driver;
    memory_.header.object_id = object;
    memory_.header.method_id = method;
  }

  ib_uverbs_attr& Number(uint16_t id, uint64_t value, uint16_t length) {
    ib_uverbs_attr& attribute = Add(id);
    attribute.len = length;
    attribute.data = value;
    return attribute;
  }
  // An object's handle, or what the kernel puts one into.
  ib_uverbs_attr& Object(uint16_t id, uint32_t handle) { return Number(id, handle, 0); }
  void Constant(uint16_t id, uint64_t value) { Number(id, value, sizeof(uint64_t)); }
  void Pointer(uint16_t id, const void* data, uint16_t length) {
    Number(id, reinterpret_cast<uintptr_t>(data), length);
  }

  int Send(const ibv_context* context) {
    memory_.header.length = static_cast<__u16>(offsetof(Memory, attributes) +
                                               memory_.header.num_attrs * sizeof(ib_uverbs_attr));
    return ioctl(context->cmd_fd, RDMA_VERBS_IOCTL, &memory_) < 0 ? errno : 0;
  }

 private:
  // ib_uverbs_ioctl_hdr ends in a flexible array, which nothing may follow.
  struct Header {
    __u16 length;
    __u16 object_id;
    __u16 method_id;
    __u16 num_attrs;
    __aligned_u64 reserved1;
    __u32 driver_id;
    __u32 reserved2;
  };
  struct Memory {
    Header header;
    ib_uverbs_attr attributes[10];
  };
  static_assert(sizeof(Header) == sizeof(ib_uverbs_ioctl_hdr));

  ib_uverbs_attr& Add(uint16_t id) {
    ib_uverbs_attr& attribute = memory_.attributes[memory_.header.num_attrs++];
    attribute.attr_id = id;
    attribute.flags = UVERBS_ATTR_F_MANDATORY;
    return attribute;
  }

  Memory memory_;
};

}  // namespace

uint32_t FindDriverId(const ibv_context* context) {
  // enum rdma_driver_id grows; nothing is at stake in a number too many.
  constexpr uint32_t kMost = 64;
  for (uint32_t driver = 0; driver < kMost; ++driver) {
    uint64_t support = 0;
    Request request(driver, UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_CONTEXT);
    request.Pointer(UVERBS_ATTR_QUERY_CONTEXT_CORE_SUPPORT, &support, sizeof(support));
    if (request.Send(context) != EINVAL) return driver;
  }
  return 0;
}

int IoctlRegisterDmabuf(uint32_t driver, const ibv_pd* pd, uint64_t offset, uint64_t length,
                        uint64_t iova, int fd, uint32_t access, KernelRegion* out) {
  Request request(driver, UVERBS_OBJECT_MR, UVERBS_METHOD_REG_DMABUF_MR);
  const ib_uverbs_attr& handle = request.Object(UVERBS_ATTR_REG_DMABUF_MR_HANDLE, 0);
  request.Object(UVERBS_ATTR_REG_DMABUF_MR_PD_HANDLE, pd->handle);
  request.Constant(UVERBS_ATTR_REG_DMABUF_MR_OFFSET, offset);
  request.Constant(UVERBS_ATTR_REG_DMABUF_MR_LENGTH, length);
  request.Constant(UVERBS_ATTR_REG_DMABUF_MR_IOVA, iova);
  request.Number(UVERBS_ATTR_REG_DMABUF_MR_FD, static_cast<uint32_t>(fd), sizeof(uint32_t));
  request.Number(UVERBS_ATTR_REG_DMABUF_MR_ACCESS_FLAGS, access, sizeof(uint32_t));
  request.Pointer(UVERBS_ATTR_REG_DMABUF_MR_RESP_LKEY, &out->lkey, sizeof(out->lkey));
  request.Pointer(UVERBS_ATTR_REG_DMABUF_MR_RESP_RKEY, &out->rkey, sizeof(out->rkey));
  const int error = request.Send(pd->context);
  out->handle = static_cast<uint32_t>(handle.data);
  return error;
}

int IoctlDeregister(uint32_t driver, const ibv_context* context, uint32_t handle) {
  Request request(driver, UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY);
  request.Object(UVERBS_ATTR_DESTROY_MR_HANDLE, handle);
  return request.Send(context);
}

int IoctlAdvise(uint32_t driver, const ibv_pd* pd, uint32_t advice, uint32_t flags,
                const ibv_sge& range) {
  Request request(driver, UVERBS_OBJECT_MR, UVERBS_METHOD_ADVISE_MR);
  request.Object(UVERBS_ATTR_ADVISE_MR_PD_HANDLE, pd->handle);
  request.Number(UVERBS_ATTR_ADVISE_MR_ADVICE, advice, sizeof(uint64_t));
  request.Number(UVERBS_ATTR_ADVISE_MR_FLAGS, flags, sizeof(uint32_t));
  // struct ib_uverbs_sge is struct ibv_sge.
  request.Pointer(UVERBS_ATTR_ADVISE_MR_SGE_LIST, &range, sizeof(range));
  return request.Send(pd->context);
}

}  // namespace p2pdma::verbs
