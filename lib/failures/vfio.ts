/** VFIO, with either of its IOMMU interfaces. */
import type { Failure } from './failure.js'
import { needs, type Symptom } from './symptom.js'

export const vfio: readonly Symptom[] = [
  {
    codes: ['ENOENT', 'ENODEV'],
    doing: ['vfio.container'],
    hint: 'load the driver: `modprobe vfio-pci`',
    source: 'drivers/vfio/container.c, vfio_container_init()',
  },
  {
    codes: ['EACCES'],
    doing: ['vfio.container'],
    hint: 'run as root, or give the user /dev/vfio',
    source: 'fs/namei.c, may_open()',
  },
  {
    codes: ['ENOENT'],
    doing: ['vfio.group'],
    hint: ({ of }) => `bind a device of group ${of ?? ''} to vfio-pci: \`p2pdma bind\``,
    source: 'drivers/vfio/group.c, vfio_group_alloc()',
  },
  {
    codes: ['EBUSY'],
    doing: ['vfio.group'],
    hint: ({ of }) => `somebody else has group ${of ?? ''} open`,
    source: 'drivers/vfio/group.c, vfio_group_fops_open()',
  },
  {
    codes: ['EACCES'],
    doing: ['vfio.group', 'iommufd.open', 'iommufd.device'],
    hint: giveFile,
    source: 'fs/namei.c, may_open()',
  },
  {
    codes: ['ENODEV'],
    doing: ['vfio.device'],
    hint: ({ of = '' }) => `${of} is not bound to vfio-pci: \`p2pdma bind ${of}\``,
    source: 'drivers/vfio/group.c, vfio_device_get_from_name()',
  },
  {
    codes: ['EBUSY'],
    doing: ['vfio.device'],
    hint: ({ of = '' }) => `${of} is open already`,
    source: 'drivers/vfio/group.c, vfio_group_ioctl_get_device_fd()',
  },
  {
    codes: ['EPERM'],
    doing: ['vfio.iommu'],
    hint: 'no interrupt remapping: vfio_iommu_type1.allow_unsafe_interrupts=1',
    source: 'drivers/vfio/vfio_iommu_type1.c, vfio_iommu_type1_attach_group()',
  },
  {
    codes: ['EEXIST'],
    doing: ['type1.map', 'iommufd.map'],
    hint: 'something is mapped there: unmap it first',
    source: 'drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map()',
  },
  {
    codes: ['EFAULT'],
    doing: ['type1.map'],
    hint: 'type1 takes memory with pages (a memfd) and BARs; not a dma-buf that maps bare frames',
    source: 'drivers/vfio/vfio_iommu_type1.c, vaddr_get_pfns()',
  },
  {
    codes: ['ENOSPC'],
    doing: ['type1.map'],
    hint: 'raise the limit of mappings: module parameter vfio_iommu_type1.dma_entry_limit',
    source: 'drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map()',
  },
  {
    codes: ['ENOENT'],
    doing: ['iommufd.open'],
    hint: 'load the driver: `modprobe iommufd`; the kernel needs CONFIG_IOMMUFD',
    source: 'drivers/iommu/iommufd/main.c, iommufd_init()',
  },
  {
    codes: ['ENODEV'],
    doing: ['iommufd.open'],
    hint: 'load the driver: `modprobe iommufd`',
    source: 'drivers/iommu/iommufd/main.c, iommufd_init()',
  },
  {
    codes: ['EBUSY'],
    doing: ['iommufd.bind'],
    hint: 'somebody else has the device, or its group, open',
    source: 'drivers/vfio/device_cdev.c, vfio_df_ioctl_bind_iommufd()',
  },
  {
    codes: ['EADDRINUSE'],
    doing: ['iommufd.map'],
    hint: 'something is mapped there, or the IOMMU keeps it for itself',
    source: 'drivers/iommu/iommufd/io_pagetable.c, iopt_check_iova()',
  },
  {
    codes: ['EFAULT'],
    doing: ['iommufd.map'],
    hint: 'iommufd takes memory with pages (a memfd) and BARs; not what maps bare frames',
    source: 'drivers/iommu/iommufd/pages.c, pfn_reader_user_pin()',
  },
  {
    codes: ['ENODEV'],
    doing: ['iommufd.map'],
    hint: "the device's memory is switched off, or it has been reset",
    source: 'drivers/iommu/iommufd/pages.c, iopt_map_dmabuf()',
  },
  {
    codes: ['ENOTTY', 'EINVAL'],
    doing: ['iommufd.map'],
    hint: "this kernel's iommufd takes no device memory: open the device with space 'type1'",
    source: 'drivers/iommu/iommufd/ioas.c, iommufd_ioas_map_file()',
  },
  {
    codes: ['ENOTTY', 'EOPNOTSUPP'],
    doing: ['vfio.export'],
    unsupported: true,
    hint: needs('6.19'),
    source: 'drivers/vfio/pci/vfio_pci_dmabuf.c, vfio_pci_core_feature_dma_buf()',
  },
  {
    codes: ['ENODEV'],
    doing: ['vfio.export'],
    hint: 'only a BAR with memory can be exported',
    source: 'drivers/vfio/pci/vfio_pci_dmabuf.c, vfio_pci_core_feature_dma_buf()',
  },
  {
    codes: ['EINVAL'],
    doing: ['vfio.export'],
    hint: 'the device has no memory for its peers there (pci_p2pdma), or the range is not page-aligned',
    source: 'drivers/vfio/pci/vfio_pci_dmabuf.c, validate_dmabuf_input()',
  },
  {
    codes: ['EAGAIN'],
    doing: ['vfio.reset'],
    hint: 'somebody else is working on the device: try again',
    source: 'drivers/pci/pci.c, pci_try_reset_function()',
  },
]

function giveFile({ path }: Failure): string {
  return `run as root, or give the user ${path ?? 'the file'}`
}
