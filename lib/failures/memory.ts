/** Memory, what exports it, and what the kernel tells and is told in files. */
import { needs, type Symptom } from './symptom.js'

/** include/uapi/linux/fcntl.h. */
const F_SEAL_SEAL = 1
const F_SEAL_SHRINK = 2
const F_SEAL_GROW = 4

export const memory: readonly Symptom[] = [
  {
    codes: ['ENODEV'],
    doing: ['memfd.create'],
    hint: 'no huge pages of this size: see /sys/kernel/mm/hugepages',
    source: 'fs/hugetlbfs/inode.c, hugetlb_file_setup()',
  },
  {
    codes: ['EPERM'],
    doing: ['memfd.resize'],
    when: ({ seals }) => seals === undefined || (seals() & (F_SEAL_SHRINK | F_SEAL_GROW)) !== 0,
    hint: 'a seal (F_SEAL_SHRINK, F_SEAL_GROW) forbids the new size',
    certain: true,
    source: 'mm/shmem.c, shmem_setattr()',
  },
  {
    codes: ['EPERM'],
    doing: ['memfd.seal'],
    when: ({ seals }) => seals === undefined || (seals() & F_SEAL_SEAL) !== 0,
    hint: 'the memfd was made without MFD_ALLOW_SEALING, or has F_SEAL_SEAL',
    certain: true,
    source: 'mm/memfd.c, memfd_add_seals()',
  },
  {
    codes: ['ENOENT', 'ENODEV'],
    doing: ['udmabuf.open'],
    hint: 'load the module: `modprobe udmabuf` (CONFIG_UDMABUF)',
    source: 'drivers/dma-buf/udmabuf.c, udmabuf_dev_init()',
  },
  {
    codes: ['EACCES'],
    doing: ['udmabuf.open'],
    hint: 'no permission for /dev/udmabuf: join its group (kvm on Debian) or run as root',
    source: 'fs/namei.c, may_open()',
  },
  {
    codes: ['EINVAL'],
    doing: ['udmabuf.create'],
    when: ({ wrong }) => wrong?.() ?? false,
    source: 'drivers/dma-buf/udmabuf.c, udmabuf_create()',
  },
  {
    codes: ['EBADFD'],
    doing: ['udmabuf.create'],
    hint: 'not a memfd',
    source: 'drivers/dma-buf/udmabuf.c, check_memfd_seals()',
  },
  {
    codes: ['ENOTTY'],
    doing: ['udmabuf.create'],
    hint: needs('4.20'),
    source: 'drivers/dma-buf/udmabuf.c, udmabuf_ioctl()',
  },
  {
    codes: ['ENOENT'],
    doing: ['heap.open'],
    hint: ({ wrong }) =>
      ['needs CONFIG_DMABUF_HEAPS, and the module: `modprobe system_heap`', wrong?.() ?? '']
        .filter((part) => part !== '')
        .join('; '),
    source: 'drivers/dma-buf/dma-heap.c, dma_heap_add()',
  },
  {
    codes: ['EACCES'],
    doing: ['heap.open'],
    hint: "no permission: /dev/dma_heap is root's unless a udev rule says otherwise",
    source: 'drivers/dma-buf/dma-heap.c, dma_heap_devnode()',
  },
  {
    codes: ['ENOENT'],
    doing: ['drm.open'],
    hint: 'load the driver: `modprobe vgem` (CONFIG_DRM_VGEM)',
    source: 'drivers/gpu/drm/drm_drv.c, drm_dev_register()',
  },
  {
    codes: ['EACCES'],
    doing: ['drm.open'],
    hint: 'no permission for /dev/dri: join the group video or run as root',
    source: 'fs/namei.c, may_open()',
  },
  {
    codes: ['ENOTTY'],
    doing: ['drm.query'],
    unsupported: true,
    source: 'drivers/gpu/drm/drm_ioctl.c, drm_ioctl()',
  },
  {
    codes: ['ENOSYS', 'EOPNOTSUPP'],
    doing: ['drm.create'],
    unsupported: true,
    source: 'drivers/gpu/drm/drm_dumb_buffers.c, drm_mode_create_dumb()',
  },
  {
    codes: ['ENOTTY'],
    doing: ['dma-buf.name'],
    unsupported: true,
    hint: needs('5.3'),
    source: 'drivers/dma-buf/dma-buf.c, dma_buf_set_name()',
  },
  {
    codes: ['EINVAL'],
    doing: ['dma-buf.sync'],
    hint: 'an exporter may refuse an end of access that has no beginning',
    source: 'drivers/dma-buf/udmabuf.c, end_cpu_udmabuf()',
  },
  {
    codes: ['ENOTTY'],
    doing: ['sync-file.exchange'],
    unsupported: true,
    hint: needs('6.0'),
    source: 'drivers/dma-buf/dma-buf.c, dma_buf_export_sync_file()',
  },
  {
    codes: ['ENOTTY'],
    doing: ['sync-file.deadline'],
    unsupported: true,
    hint: needs('6.6'),
    source: 'drivers/dma-buf/sync_file.c, sync_file_ioctl_set_deadline()',
  },

  {
    codes: ['EPERM', 'EACCES'],
    doing: ['kmsg.open'],
    hint: 'run as root, or allow it with `sysctl kernel.dmesg_restrict=0`',
    source: 'kernel/printk/printk.c, check_syslog_permissions()',
  },
  {
    codes: ['ENOENT'],
    doing: ['kmsg.open'],
    hint: 'this kernel, or container, has no /dev/kmsg',
    source: 'drivers/char/mem.c, devlist[]',
  },
  {
    codes: ['EACCES', 'EPERM'],
    doing: ['system.write'],
    hint: 'run as root',
    source: 'fs/kernfs/file.c, kernfs_fop_open()',
  },
  {
    codes: ['EROFS'],
    doing: ['system.write'],
    hint: 'sysfs is read-only here',
    source: 'fs/namespace.c, mnt_want_write()',
  },
]
