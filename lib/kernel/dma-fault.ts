/** The IOMMU's faults, as the kernel logs them. */
import { typeError } from '../errors.js'

export interface DmaFault {
  /** `0000:00:12.0`; where the kernel leaves the domain out, 0000. */
  device: string
  /** Whether the device tried to write. */
  write: boolean
  /** What it tried to reach; of an Intel IOMMU the start of the page. */
  iova: number
  /** As the kernel says it, or the number that it gives. */
  reason: string
}

/**
 * Bytes of which an Intel IOMMU tells that one of them was tried: its fault record has bits 63
 * to 12 of the address (VT-d specification, FRCD_REG), whatever pages the CPU has.
 */
export const FAULT_PAGE = 4096

/**
 * The DMA fault that a line of the kernel's log tells of; null where it tells
 * of none. Intel (drivers/iommu/intel/dmar.c, dmar_fault_do_one) and AMD
 * (drivers/iommu/amd/iommu.c, amd_iommu_report_page_fault).
 */
export function parseDmarFault(line: string): DmaFault | null {
  if (typeof line !== 'string') throw typeError('line', 'a string', line)
  return intel(line) ?? amd(line)
}

function intel(line: string): DmaFault | null {
  const pattern =
    /DMAR: \[DMA (Read|Write)[^\]]*\] Request device \[([0-9a-f:.]+)\].*? fault addr (?:0x)?([0-9a-f]+) \[fault reason (?:0x)?([0-9a-f]+)\] *(.*)$/
  const [, way, device = '', address = '', number = '', text = ''] = pattern.exec(line) ?? []
  if (way === undefined) return null
  return {
    device: device.split(':').length === 2 ? `0000:${device}` : device,
    write: way === 'Write',
    iova: parseInt(address, 16),
    reason: text.trim() || `fault reason 0x${number}`,
  }
}

/** Bits of the event's flags: what is no memory access, and what is a write. */
const AMD_INTERRUPT = 0x008
const AMD_WRITE = 0x020

function amd(line: string): DmaFault | null {
  const [, before = '', fields = ''] =
    /^(.*)AMD-Vi: Event logged \[IO_PAGE_FAULT ([^\]]*)\]/.exec(line) ?? []
  const field = (name: string) => new RegExp(`\\b${name}=(\\S+)`).exec(fields)?.[1]
  // Of a device that has a driver the line begins with both.
  const device =
    field('device') ?? /([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): $/.exec(before)?.[1]
  const address = field('address')
  const flags = Number(field('flags') ?? NaN)
  if (device === undefined || address === undefined || !Number.isInteger(flags)) return null
  if ((flags & AMD_INTERRUPT) !== 0) return null
  return {
    device: device.split(':').length === 2 ? `0000:${device}` : device,
    write: (flags & AMD_WRITE) !== 0,
    iova: parseInt(address, 16),
    reason: `IO_PAGE_FAULT, flags ${field('flags')}`,
  }
}
