/** What failed: the part of an error that its explanation goes by. */

/** What was being done when it failed, where the code alone does not say enough. */
export type Doing =
  | 'cm'
  | 'dma-buf.name'
  | 'dma-buf.sync'
  | 'drm.create'
  | 'drm.import'
  | 'drm.open'
  | 'drm.query'
  | 'heap.open'
  | 'iommufd.bind'
  | 'iommufd.device'
  | 'iommufd.map'
  | 'iommufd.open'
  | 'kmsg.open'
  | 'memfd.create'
  | 'memfd.resize'
  | 'memfd.seal'
  | 'sync-file.deadline'
  | 'sync-file.exchange'
  | 'system.write'
  | 'type1.map'
  | 'udmabuf.create'
  | 'udmabuf.open'
  | 'verbs.advise'
  | 'verbs.bind'
  | 'verbs.cq'
  | 'verbs.deregister'
  | 'verbs.dmabuf'
  | 'verbs.modify'
  | 'verbs.open'
  | 'verbs.qp'
  | 'verbs.register'
  | 'verbs.srq'
  | 'verbs.window'
  | 'vfio.container'
  | 'vfio.device'
  | 'vfio.export'
  | 'vfio.group'
  | 'vfio.iommu'
  | 'vfio.reset'

/** What the caller knows of it. Functions are called only where a hint needs them. */
export interface About {
  /** The file that was to be opened; in the message, too. */
  path?: string | undefined
  /** What it was of: an RDMA device, a PCI address, an IOMMU group. */
  of?: string | undefined
  /** Bytes that were asked for. */
  bytes?: number | undefined
  /** Bytes of one of the memory's pages, where these are huge. */
  hugePage?: number | undefined
  /** Of the memfd: F_SEAL_*. */
  seals?: (() => number) | undefined
  /** What the caller can see to be wrong with its request; empty where it sees nothing. */
  wrong?: (() => string) | undefined
}

export interface Failure extends About {
  /** As of a system error: `EMFILE`. */
  code: string
  syscall?: string | undefined
  doing?: Doing | undefined
}
