/** Numbers of include/uapi/linux/vfio.h and, at the end, iommufd.h. */

export const VFIO_API_VERSION = 0

/** What VFIO_CHECK_EXTENSION and VFIO_SET_IOMMU take. */
export const TYPE1V2_IOMMU = 3

/** Flags of VFIO_GROUP_GET_STATUS. */
export const GroupFlag = { VIABLE: 1, CONTAINER_SET: 2 } as const

/** Flags of VFIO_DEVICE_GET_INFO. */
export const DeviceFlag = { RESET: 1, PCI: 2 } as const

/** Flags of VFIO_DEVICE_GET_REGION_INFO. */
export const RegionFlag = { READ: 1, WRITE: 2, MMAP: 4 } as const

/** A PCI device's regions; BARs 0 to 5 are 0 to 5. */
export const Region = { BAR0: 0, ROM: 6, CONFIG: 7, VGA: 8 } as const

/** A PCI device's kinds of interrupts. */
export const Irq = { INTX: 0, MSI: 1, MSIX: 2, ERROR: 3, REQUEST: 4 } as const

/** Flags of VFIO_DEVICE_GET_IRQ_INFO. */
export const IrqFlag = { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4, NORESIZE: 8 } as const

/** Flags of VFIO_DEVICE_SET_IRQS: what the data is, and what is to be done. */
export const IrqSet = {
  DATA_NONE: 1,
  DATA_EVENTFD: 4,
  MASK: 8,
  UNMASK: 16,
  TRIGGER: 32,
} as const

/** Flags of IOMMU_IOAS_MAP and IOMMU_IOAS_MAP_FILE. */
export const IommufdMap = { FIXED_IOVA: 1, WRITEABLE: 2, READABLE: 4 } as const
