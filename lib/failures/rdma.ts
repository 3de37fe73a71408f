/** RDMA devices: libibverbs and librdmacm. */
import type { Symptom } from './symptom.js'

const LOAD_VERBS = 'load the driver: `modprobe ib_uverbs`, or soft-RoCE with `modprobe rdma_rxe`'

export const rdma: readonly Symptom[] = [
  {
    codes: ['EINVAL'],
    doing: ['verbs.register'],
    when: ({ hugePage }, { env }) =>
      hugePage !== undefined &&
      (isSet(env['RDMAV_FORK_SAFE']) || isSet(env['IBV_FORK_SAFE'])) &&
      env['RDMAV_HUGEPAGES_SAFE'] === undefined,
    hint:
      'under RDMAV_FORK_SAFE, libibverbs marks pages of the usual size, and these are huge: set ' +
      'RDMAV_HUGEPAGES_SAFE=1 in the environment that the process starts with',
    certain: true,
    source:
      'rdma-core, libibverbs/memory.c, ibv_madvise_range(); mm/madvise.c, madvise_walk_vmas()',
  },
  {
    codes: ['ENOSYS', 'ENOENT'],
    doing: ['verbs.open'],
    hint: LOAD_VERBS,
    source: 'libibverbs/init.c',
  },
  {
    codes: ['EACCES', 'EPERM'],
    doing: ['verbs.open'],
    hint: 'needs read and write access to /dev/infiniband/uverbs* (of a container: `--device`)',
    source: 'libibverbs/device.c, verbs_open_device()',
  },
  {
    codes: ['EFAULT'],
    doing: ['verbs.register'],
    hint: 'memory without pages (a dma-buf or BAR) cannot be registered so: registerDmabuf()',
    source: 'mm/gup.c, check_vma_flags()',
  },
  {
    codes: ['EACCES'],
    doing: ['verbs.register'],
    hint: 'the mapping has to be writable for such access',
    source: "the reg_user_mr() of the device's driver",
  },
  {
    codes: ['EOPNOTSUPP'],
    doing: ['verbs.register'],
    hint: 'the device does not do that: see VerbsDevice.attributes()',
    source: 'drivers/infiniband/core/uverbs_cmd.c, ib_uverbs_reg_mr()',
  },
  {
    codes: ['EOPNOTSUPP'],
    doing: ['verbs.dmabuf'],
    hint: "the device's driver registers no dma-bufs, or not this exporter's: register a memory mapping",
    source: 'drivers/infiniband/core/uverbs_std_types_mr.c, UVERBS_METHOD_REG_DMABUF_MR',
  },
  {
    codes: ['EPROTONOSUPPORT'],
    doing: ['verbs.dmabuf'],
    hint: 'this kernel has no dma-buf registration: Linux 5.12 or later',
    source: 'drivers/infiniband/core/uverbs_ioctl.c, ib_uverbs_cmd_verbs()',
  },
  {
    codes: ['EINVAL'],
    doing: ['verbs.dmabuf'],
    hint: "the device cannot reach this exporter's memory (PCIe topology), or the driver has not the call",
    source: 'drivers/pci/p2pdma.c, calc_map_type_and_dist()',
  },
  {
    codes: ['EREMOTEIO'],
    doing: ['verbs.dmabuf'],
    hint: "the device cannot reach this exporter's memory: see the PCIe topology (`lspci -t`)",
    source: 'kernel/dma/mapping.c, dma_map_sgtable()',
  },
  {
    codes: ['ERR_VERBS_TOO_OLD'],
    hint: 'the library is older than this call: upgrade libibverbs and librdmacm (rdma-core)',
    source: 'native/verbs/handle.cc, ThrowTooOld()',
  },
  {
    codes: ['ENOSYS'],
    doing: ['verbs.dmabuf', 'drm.import'],
    hint:
      'no device can map buffers of that driver (qxl, and others that keep them in video ' +
      'memory): use another exporter',
    source: 'drivers/gpu/drm/drm_prime.c, drm_gem_map_attach(); drivers/gpu/drm/qxl/qxl_prime.c',
  },
  {
    codes: ['EBADF'],
    doing: ['verbs.dmabuf'],
    hint: 'the dma-buf is not one',
    source: 'drivers/dma-buf/dma-buf.c, dma_buf_get()',
  },
  {
    codes: ['EINVAL'],
    doing: ['verbs.deregister'],
    hint: 'memory windows are bound to it: unbind or close them first',
    source: 'drivers/infiniband/sw/rxe/rxe_verbs.c, rxe_dereg_mr()',
  },
  {
    codes: ['EOPNOTSUPP'],
    doing: ['verbs.advise'],
    hint: 'the device has no on-demand paging: see VerbsDevice.attributes()',
    source: 'drivers/infiniband/core/uverbs_std_types_mr.c, UVERBS_METHOD_ADVISE_MR',
  },
  {
    codes: ['EINVAL'],
    doing: ['verbs.cq', 'verbs.qp', 'verbs.srq'],
    hint: ({ wrong }) =>
      `more than the device has room for: ${wrong?.() ?? 'see VerbsDevice.attributes()'}`,
    source: 'the create_cq(), create_qp() and create_srq() of the device driver',
  },
  {
    codes: ['EOPNOTSUPP'],
    doing: ['verbs.window'],
    hint: 'the device has no memory windows of that type',
    source: 'drivers/infiniband/core/uverbs_cmd.c, ib_uverbs_alloc_mw()',
  },
  {
    codes: ['EINVAL'],
    doing: ['verbs.bind'],
    hint: 'the region needs MemoryAccess.MW_BIND',
    source: 'libibverbs/verbs.c, ibv_bind_mw()',
  },
  {
    codes: ['EINVAL'],
    doing: ['verbs.modify'],
    hint: 'the state does not follow from the present one, or a field is missing or out of place',
    source: 'drivers/infiniband/core/verbs.c, ib_modify_qp_is_ok()',
  },
  {
    codes: ['ENETUNREACH'],
    doing: ['verbs.modify'],
    hint: "the peer's GID is not reachable by this one",
    source: 'drivers/infiniband/core/addr.c, addr_resolve()',
  },
  {
    codes: ['EHOSTUNREACH', 'ETIMEDOUT'],
    doing: ['verbs.modify'],
    hint: 'nobody answered for the address in the GID: is the peer up?',
    source: 'drivers/infiniband/core/addr.c, rdma_addr_find_l2_eth_by_grh()',
  },
  {
    codes: ['ENODEV'],
    doing: ['cm'],
    hint: 'no RDMA device has that address: see `rdma link`; is rdma_ucm loaded (`modprobe rdma_ucm`)?',
    source: 'drivers/infiniband/core/cma.c, cma_acquire_dev_by_src_ip()',
  },
  {
    codes: ['ENOENT'],
    doing: ['cm'],
    hint: 'load the driver: `modprobe rdma_ucm`',
    source: 'librdmacm/cma.c, ucma_init()',
  },
  {
    codes: ['EACCES'],
    doing: ['cm'],
    hint: 'needs read and write access to /dev/infiniband/rdma_cm',
    source: 'librdmacm/cma.c, rdma_create_event_channel()',
  },
  {
    codes: ['EADDRNOTAVAIL'],
    doing: ['cm'],
    hint: 'no interface of this network namespace has that address',
    source: 'drivers/infiniband/core/addr.c, rdma_translate_ip()',
  },
  {
    codes: ['EADDRINUSE'],
    doing: ['cm'],
    hint: 'somebody listens there already',
    source: 'drivers/infiniband/core/cma.c, cma_check_port()',
  },
]

const isSet = (value: string | undefined) => value !== undefined && value !== '0'
