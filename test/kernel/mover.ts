/** The exporter whose buffers move (test/modules/p2pdma_mover.c), as `rig --rxe-dmabuf` loads it. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { DmaBuf } from '../../lib/kernel/index.js'

const DEVICE = '/dev/p2pdma_mover'

/** An answer is one line of numbers, or none. */
const numbers = (answer: string) =>
  answer.trim() === '' ? [] : answer.trim().split(' ').map(Number)

function ask(command: string): number[] {
  const fd = openSync(DEVICE, 'r+')
  try {
    writeSync(fd, command)
    const answer = Buffer.alloc(128)
    return numbers(answer.toString('latin1', 0, readSync(fd, answer)))
  } finally {
    closeSync(fd)
  }
}

export interface MoverInfo {
  moves: number
  /** By importers that cannot follow a move. */
  pins: number
  /** Whether a move has not ended yet. */
  pending: boolean
  /** Bytes of the old backing that were written after its poisoning; 0 while a move is pending. */
  stale: number
}

/** A dma-buf with two backings. */
export class Mover {
  readonly dmaBuf: DmaBuf

  /** `size` in bytes, whole pages, at most 256 MiB. */
  constructor(size: number) {
    const [fd = -1] = ask(`create ${size}`)
    this.dmaBuf = DmaBuf.adopt(fd)
  }

  /**
   * Begins a move: importers have let go when it resolves, with the number of
   * moves so far; the bytes are there after `delay` milliseconds, when the
   * buffer's fence signals. `fail`: they never are, the fence signals an error.
   * `hold`: only after `release()`. Rejects with EBUSY while it is pinned, with
   * EALREADY while another is held.
   */
  async move(delay = 0, how: 'fail' | 'hold' | '' = ''): Promise<number> {
    // Not on the loop: it waits for the move before it.
    await using file = await openDevice()
    await file.handle.write(`move ${this.dmaBuf.fd} ${delay} ${how}`)
    const answer = Buffer.alloc(128)
    const { bytesRead } = await file.handle.read(answer, 0, answer.length, null)
    return numbers(answer.toString('latin1', 0, bytesRead))[0] ?? NaN
  }

  /** Lets a held move go on; EINVAL where there is none. */
  release(): void {
    ask(`release ${this.dmaBuf.fd}`)
  }

  /** An importer that cannot follow a move, until it is disposed of. */
  pin(): Disposable {
    const fd = openSync(DEVICE, 'r+')
    writeSync(fd, `pin ${this.dmaBuf.fd}`)
    return { [Symbol.dispose]: () => closeSync(fd) }
  }

  info(): MoverInfo {
    const [moves = NaN, pins = NaN, pending = NaN, stale = NaN] = ask(`info ${this.dmaBuf.fd}`)
    return { moves, pins, pending: pending === 1, stale }
  }

  [Symbol.dispose](): void {
    this.dmaBuf.close()
  }
}

async function openDevice() {
  const handle = await open(DEVICE, 'r+')
  return { handle, [Symbol.asyncDispose]: () => handle.close() }
}
