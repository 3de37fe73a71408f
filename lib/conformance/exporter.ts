/** What `Exporter` and `Backing` promise, one check for each promise. */
import { memfd } from '../exporters/memfd.js'
import type { Backing, CopyRange, Exporter } from '../move-notify/exporter/backing.js'
import { wayToCopy } from '../move-notify/exporter/copying.js'
import { MovableBuffer } from '../move-notify/exporter/movable-buffer.js'
import { type ConformanceCheck, errorOf, holds } from './check.js'

type Look = (exporter: Exporter) => Promise<void>

/** Small, and no multiple of a page. */
const SIZE = 50_000

/** The checks of an exporter: each allocates from it, and gives everything back. */
export function exporterChecks(exporter: Exporter): ConformanceCheck[] {
  return Object.entries(looks).map(([name, look]) => ({ name, run: () => look(exporter) }))
}

const looks: Readonly<Record<string, Look>> = {
  'it allocates as much as is asked for, zeroed': async (exporter) => {
    await withBacking(exporter, async (backing) => {
      holds(backing.placement === exporter.placement, `its placement is ${backing.placement}`)
      const isWhole = Number.isSafeInteger(backing.size) && backing.size >= SIZE
      holds(isWhole, `${backing.size} bytes for ${SIZE}`)
      holds(Number.isSafeInteger(backing.offset) && backing.offset >= 0, 'its offset')
      holds(Number.isInteger(backing.fd), 'its fd is no number')
      holds(!backing.isDmaBuf || exporter.kind === 'kernel', 'a dma-buf that no kernel has made')
      holds((await read(backing)).equals(Buffer.alloc(backing.size)), 'it is not zeroed')
    })
  },

  'what it cannot allocate is a typed error': async (exporter) => {
    await errorOf('no bytes at all', () => exporter.allocate(0))
    await errorOf('more than there is', () => exporter.allocate(2 ** 52))
  },

  'bytes are copied to memory and back, as many as both have': async (exporter) => {
    await withBacking(exporter, async (backing) => {
      const bytes = pattern(1, backing.size)
      await write(backing, bytes)
      holds(Buffer.compare(await read(backing), bytes) === 0, 'other bytes come back')
      const short = pattern(2, 4096)
      await write(backing, short)
      bytes.set(short)
      holds(Buffer.compare(await read(backing), bytes) === 0, 'a short copy changes the rest')
    })
  },

  'bytes are copied from one of its backings to another': async (exporter) => {
    await withBacking(exporter, async (one) => {
      await withBacking(exporter, async (other) => {
        const bytes = pattern(3, one.size)
        await write(one, bytes)
        await copy(one, other)
        holds(Buffer.compare(await read(other), bytes) === 0, 'other bytes arrive')
      })
    })
  },

  'a range is copied to where it belongs, and nothing beside it': async (exporter) => {
    await withBacking(exporter, async (backing) => {
      const bytes = pattern(6, backing.size)
      await write(backing, bytes)
      const other = pattern(7, 8192)
      const there = { sourceOffset: 64, targetOffset: 4160, length: 1088 }
      await write(backing, other, there)
      bytes.set(other.subarray(64, 64 + 1088), 4160)
      holds(Buffer.compare(await read(backing), bytes) === 0, 'other bytes were written')
      const back = { sourceOffset: 4096, targetOffset: 128, length: 1984 }
      const found = await read(backing, back)
      const due = Buffer.alloc(backing.size)
      due.set(bytes.subarray(4096, 4096 + 1984), 128)
      holds(Buffer.compare(found, due) === 0, 'other bytes were read')
    })
  },

  'a write into what is poisoned is counted': async (exporter) => {
    await withBacking(exporter, async (backing) => {
      await backing.poison()
      const before = await backing.countStrayWrites()
      holds(before === 0, `${before} stray writes are counted where there was none`)
      const bytes = await read(backing)
      bytes.fill(0, 24_000, 24_008)
      await write(backing, bytes)
      const after = await backing.countStrayWrites()
      holds(after === 1, `${after} stray writes are counted where there was one`)
    })
  },

  'a window shows the bytes, until it is ended; or the CPU has none': async (exporter) => {
    await withBacking(exporter, async (backing) => {
      const bytes = pattern(4, backing.size)
      await write(backing, bytes)
      const opened = await backing.openCpuWindow('rw').catch((error: unknown) => error as Error)
      if (opened instanceof Error) {
        const { code } = await errorOf('a window', () => backing.openCpuWindow('r'))
        holds(code === 'ERR_UNSUPPORTED', `a window onto what the CPU does not reach is ${code}`)
        return
      }
      const view = opened.view(4096, 8192)
      holds(Buffer.compare(view, bytes.subarray(4096, 12_288)) === 0, 'it shows other bytes')
      view.fill(9)
      await opened.end()
      await opened.end()
      holds(view.length === 0, 'a view is there after the end')
      bytes.fill(9, 4096, 12_288)
      holds(Buffer.compare(await read(backing), bytes) === 0, 'what was written is not there')
    })
  },

  'it is freed once, however often': async (exporter) => {
    const backing = await exporter.allocate(SIZE)
    await Promise.all([backing.free(), backing.free()])
    await backing.free()
  },

  'a buffer keeps its bytes when it moves there, within, and back': async (exporter) => {
    const system = memfd()
    await using buffer = await MovableBuffer.create(SIZE, system, { poison: true })
    const bytes = pattern(5, SIZE)
    await buffer.withCpuAccess('w', (cpu) => void cpu.view().set(bytes))
    for (const to of [exporter, exporter, system]) await buffer.move(to)
    const kept = await buffer.withCpuAccess('r', (cpu) => Buffer.from(cpu.view()))
    holds(Buffer.compare(kept, bytes) === 0, 'the bytes are others')
    holds((await buffer.countStrayWrites()) === 0, 'stray writes are counted')
  },
}

async function withBacking(
  exporter: Exporter,
  use: (backing: Backing) => Promise<void>,
): Promise<void> {
  const backing = await exporter.allocate(SIZE)
  try {
    await use(backing)
  } finally {
    await backing.free()
  }
}

function pattern(seed: number, size: number): Buffer {
  const period = Uint8Array.from({ length: 65_521 }, (_, i) => (i * 7 + (i >> 8) + seed) & 0xff)
  return Buffer.alloc(size, period)
}

function copy(from: Backing, to: Backing, range?: CopyRange): Promise<void> {
  return wayToCopy(from, to, []).copy(range && [range])
}

/** By way of system memory: the CPU may reach nothing else. */
async function write(backing: Backing, bytes: Uint8Array, range?: CopyRange): Promise<void> {
  const staged = await memfd().allocate(bytes.length)
  try {
    const window = await staged.openCpuWindow('w')
    window.view(0, bytes.length).set(bytes)
    await window.end()
    await copy(staged, backing, range)
  } finally {
    await staged.free()
  }
}

async function read(backing: Backing, range?: CopyRange): Promise<Buffer> {
  const staged = await memfd().allocate(backing.size)
  try {
    await copy(backing, staged, range)
    const window = await staged.openCpuWindow('r')
    const bytes = Buffer.from(window.view(0, backing.size))
    await window.end()
    return bytes
  } finally {
    await staged.free()
  }
}
