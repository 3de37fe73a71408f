// The kernel's own ioctl, for what a provider library has no call of: librxe
// lacks dma-buf registration and advice (rdma-core 44 to 65), so libibverbs
// answers EOPNOTSUPP before the kernel is asked.
// include/uapi/rdma/rdma_user_ioctl_cmds.h, drivers/infiniband/core/uverbs_std_types_mr.c.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>

namespace p2pdma::verbs {

// What the kernel wants to be told of each request, or it answers EINVAL
// (drivers/infiniband/core/uverbs_ioctl.c, ib_uverbs_cmd_verbs). libibverbs
// knows it and does not tell: it is found by asking with each.
uint32_t FindDriverId(const ibv_context* context);

struct KernelRegion {
  uint32_t handle;
  uint32_t lkey;
  uint32_t rkey;
};

// Each: 0 or an errno.
int IoctlRegisterDmabuf(uint32_t driver, const ibv_pd* pd, uint64_t offset, uint64_t length,
                        uint64_t iova, int fd, uint32_t access, KernelRegion* out);
int IoctlDeregister(uint32_t driver, const ibv_context* context, uint32_t handle);
int IoctlAdvise(uint32_t driver, const ibv_pd* pd, uint32_t advice, uint32_t flags,
                const ibv_sge& range);

}  // namespace p2pdma::verbs
