/** Which BAR of a device is memory: told by its header, and by a look before it is used. */
import { P2pdmaError } from '../errors.js'
import type { Mapping } from '../kernel/mapping.js'
import { Memfd } from '../kernel/memfd.js'
import type { VfioDevice } from '../kernel/vfio/index.js'

const BARS = 6

/** Of a BAR's register: include/uapi/linux/pci_regs.h. */
const FIRST_BAR = 0x10
const BAR_IO = 0x1
const BAR_PREFETCH = 0x8

/**
 * Reading memory has no side effect, so its BAR says that it may be prefetched; VFIO keeps
 * these bits (vfio_pci_config.c, vfio_generate_bar_flags()). Registers mostly do not.
 */
function isPrefetchable({ config }: VfioDevice, index: number): boolean {
  const bar = config.read32(FIRST_BAR + 4 * index)
  return (bar & BAR_IO) === 0 && (bar & BAR_PREFETCH) !== 0
}

/** The largest that the CPU can map and that says that it is memory. ERR_NOT_MAPPABLE, ERR_NOT_MEMORY. */
export function largestMemory(device: VfioDevice): number {
  const mappable = device.regions
    .slice(0, BARS)
    .filter(({ mappable, areas, size }) => mappable && areas === null && size > 0)
  if (mappable.length === 0) {
    throw new P2pdmaError(`${device.address} has no BAR that can be mapped`, {
      code: 'ERR_NOT_MAPPABLE',
      argument: 'device',
    })
  }
  const [best] = mappable
    .filter(({ index }) => isPrefetchable(device, index))
    .sort((one, other) => other.size - one.size)
  if (best !== undefined) return best.index
  throw new P2pdmaError(
    `No BAR of ${device.address} says that it is memory: none is prefetchable`,
    {
      code: 'ERR_NOT_MEMORY',
      argument: 'device',
      hint: `they hold registers; where one is memory all the same, name it: vfio-bar:${device.address}/${mappable[0]?.index}`,
    },
  )
}

export function notMemory(device: VfioDevice, index: number): P2pdmaError {
  return new P2pdmaError(`BAR ${index} of ${device.address} does not keep what is written to it`, {
    code: 'ERR_NOT_MEMORY',
    argument: 'region',
    hint: 'it holds registers, or the device has to be set up before its memory is there',
  })
}

const WORD = 8
const PATTERNS = [0xa5c3_96f0_0f69_3c5an, 0x5a3c_690f_f096_c3a5n]

/** What of a mapping is used. */
export interface Looked {
  readonly length: number
  fill(pattern: bigint, offset: number, length: number): Promise<void>
  countRuns(pattern: bigint, offset: number, length: number): Promise<number>
}

/**
 * Whether it keeps what is written to it: two patterns, in a word at its end, in its middle
 * and at its beginning, where registers that do something are most likely. The first place
 * that does not keep them ends it. `within` is given a word's offset and what is done to it.
 */
export async function keepsBytes(
  looked: Looked,
  within: (offset: number, change: () => Promise<boolean>) => Promise<boolean>,
): Promise<boolean> {
  const whole = looked.length - (looked.length % WORD)
  const middle = Math.floor(whole / 2 / WORD) * WORD
  const change = async (offset: number) => {
    for (const pattern of PATTERNS) {
      await looked.fill(pattern, offset, WORD)
      if ((await looked.countRuns(pattern, offset, WORD)) > 0) return false
    }
    return true
  }
  for (const offset of new Set([whole - WORD, middle, 0])) {
    if (!(await within(offset, () => change(offset)))) return false
  }
  return true
}

/** The same of a BAR's mapping, of which each word has afterwards what it had. */
export async function isMemory(mapping: Mapping): Promise<boolean> {
  using memfd = Memfd.create(WORD, { name: 'p2pdma-look' })
  using scratch = memfd.map()
  return await keepsBytes(mapping, async (offset, change) => {
    await scratch.copyFrom(mapping, offset, 0, WORD)
    try {
      return await change()
    } finally {
      await mapping.copyFrom(scratch, 0, offset, WORD)
    }
  })
}
