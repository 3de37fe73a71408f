/** dma-heaps: memory that the kernel allocates straight as dma-bufs. */
import { constants, readdirSync } from 'node:fs'
import { brand } from '../brand.js'
import { P2pdmaError, checkInteger, typeError } from '../errors.js'
import { native, type NativeFd } from '../native.js'
import { call, callAsync, translate } from './call.js'
import { DmaBuf } from './dma-buf.js'
import { checkFitsMachine } from './memory-limit.js'
import { OwnedFd } from './owned-fd.js'

const FOLDER = '/dev/dma_heap'

export class DmaHeap extends OwnedFd {
  static {
    brand(this)
  }

  /** As under /dev/dma_heap: `system`. */
  readonly name: string

  private constructor(fd: NativeFd, name: string) {
    super(fd)
    this.name = name
  }

  /** The names of the heaps there are; none where the kernel has none. */
  static list(): string[] {
    try {
      return readdirSync(FOLDER).sort()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw translate(error, { doing: 'heap.open' })
    }
  }

  /** Opens a heap by name. */
  static open(name: string): DmaHeap {
    if (typeof name !== 'string') throw typeError('name', 'a string', name)
    if (!/^[\w.,:+@-]+$/.test(name) || /^\.+$/.test(name)) {
      throw new P2pdmaError(`name must be one of ${FOLDER}, not a path`, {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'name',
      })
    }
    const path = `${FOLDER}/${name}`
    const fd = call(() => native.openFd(path, constants.O_RDONLY), {
      path,
      doing: 'heap.open',
      wrong: known,
    })
    return new DmaHeap(fd, name)
  }

  /**
   * Allocates zeroed memory, rounded up to pages, off the event loop. More
   * than the machine has is ENOMEM at once: the system heap would take all
   * there is before it fails (drivers/dma-buf/heaps/system_heap.c).
   */
  async alloc(size: number): Promise<DmaBuf> {
    checkInteger('size', size, 1)
    checkFitsMachine(size)
    const flags = constants.O_RDWR | O_CLOEXEC
    return DmaBuf.fromHandle(
      await callAsync(() => native.dmaHeapAlloc(this.handle, size, 0, flags, 0), { bytes: size }),
    )
  }

  dup(): DmaHeap {
    return new DmaHeap(
      call(() => native.dupFd(this.handle)),
      this.name,
    )
  }
}

/** Node does not export it; the same number on every architecture that Node runs on. */
const O_CLOEXEC = 0o2000000

function known(): string {
  try {
    const names = DmaHeap.list()
    return names.length === 0 ? 'there is no heap' : `there are: ${names.join(', ')}`
  } catch {
    return 'the heaps cannot be listed'
  }
}
