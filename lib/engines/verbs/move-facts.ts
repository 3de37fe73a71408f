/**
 * Which exporters move their buffers by themselves, and which NICs go along:
 * what the kernel's sources say. What is not here is not known.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { basename } from 'node:path'
import { parseFdinfo } from '../../kernel/fdinfo.js'
import type { VerbsDevice } from '../../kernel/verbs/index.js'
import type { Backing } from '../../move-notify/exporter/backing.js'

/** A yes or no, and the source; `null`: not known. */
export interface Fact {
  readonly holds: boolean | null
  readonly why: string
}

const yes = (why: string): Fact => ({ holds: true, why })
const no = (why: string): Fact => ({ holds: false, why })

/**
 * Whether it moves its buffers by itself, by the name in a dma-buf's fdinfo.
 * Whoever does calls dma_buf_invalidate_mappings(), formerly dma_buf_move_notify().
 */
const EXPORTERS: ReadonlyMap<string, Fact> = new Map(
  Object.entries({
    udmabuf: no('udmabuf never moves its buffers: udmabuf.c, memfd_pin_folios'),
    vfio_pci_core: no('vfio revokes its buffers and does not move them: vfio_pci_dma_buf_move'),
    // test/modules
    p2pdma_mover: yes('p2pdma_mover moves its buffers: p2pdma_mover.c, move_locked'),
  }),
)

/** The same of DRM drivers: drm_gem_prime_export() gives all of their buffers the name `drm`. */
const DRM_DRIVERS: ReadonlyMap<string, Fact> = new Map(
  Object.entries({
    vgem: no('vgem never moves its buffers: drm_gem_shmem_helper.c, drm_gem_shmem_pin'),
    amdgpu: yes('amdgpu moves its buffers: amdgpu_object.c, amdgpu_bo_move_notify'),
    xe: yes('xe moves its buffers: xe_bo.c, xe_bo_move_notify'),
  }),
)

const HEAP = no('a dma-heap never moves its buffers: drivers/dma-buf/heaps')

/** Whether the exporter of a backing moves it by itself. `name`: as the kernel calls it. */
export function exporterMoves(
  { placement, fd }: Pick<Backing, 'placement' | 'fd'>,
  name = kernelName(fd),
): Fact {
  // A heap's buffers have the heap's name, whatever that is.
  if (placement.startsWith('heap:')) return HEAP
  if (name === 'drm') {
    // Ours say of which driver they are; of others' nothing does.
    const [, driver = ''] = /^drm:(.+)$/.exec(placement) ?? []
    return DRM_DRIVERS.get(driver) ?? unknown(`the DRM driver ${driver || 'that made it'}`)
  }
  return EXPORTERS.get(name) ?? unknown(`the exporter ${name}`)
}

const unknown = (whom: string): Fact => ({
  holds: null,
  why: `whether ${whom} moves its buffers is not known`,
})

function kernelName(fd: number): string {
  try {
    return parseFdinfo(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.exporter ?? ''
  } catch {
    return ''
  }
}

const pins = (what: string) => no(`${what} pins what it registers: ib_umem_dmabuf_get_pinned`)

/** Whether what a NIC has registered may move, by the driver of its PCI function. */
const NICS: ReadonlyMap<string, Fact> = new Map(
  Object.entries({
    efa: pins('efa'),
    bnxt_en: pins('bnxt_re'),
    mana: pins('mana'),
    ionic: pins('ionic'),
    // irdma
    ice: pins('irdma'),
    i40e: pins('irdma'),
    idpf: pins('irdma'),
  }),
)

/**
 * Whether a NIC follows a dma-buf that moves: it is told, and maps it again where
 * it is. By the driver; where there is none that is known, an experiment can tell.
 */
export function nicFollows(
  device: Pick<VerbsDevice, 'name' | 'attributes'>,
  driver = driverOf(device.name),
): Fact {
  if (driver === 'mlx5_core') {
    // drivers/infiniband/hw/mlx5/mr.c: it attaches dynamically, and a page fault maps it again.
    return device.attributes().odp.supported
      ? yes('mlx5 follows by on-demand paging: mr.c, mlx5_ib_dmabuf_invalidate_cb')
      : no('mlx5 follows only by on-demand paging, which the device lacks')
  }
  const known = driver === null ? undefined : NICS.get(driver)
  return known ?? { holds: null, why: `whether ${device.name} follows a move is not known` }
}

/**
 * Who moves what is registered. We can, by deregistering, whoever else could do
 * it: so what is not known is ours.
 */
export function whoMoves(exporter: Fact, nic: Fact): { mover: 'us' | 'kernel'; decidedBy: string } {
  if (exporter.holds !== true) return { mover: 'us', decidedBy: exporter.why }
  const decidedBy = `${exporter.why}; ${nic.why}`
  return { mover: nic.holds === true ? 'kernel' : 'us', decidedBy }
}

/** Null for a device without a function of its own, as soft-RoCE is. */
function driverOf(device: string): string | null {
  try {
    return basename(readlinkSync(`/sys/class/infiniband/${device}/device/driver`))
  } catch {
    return null
  }
}
