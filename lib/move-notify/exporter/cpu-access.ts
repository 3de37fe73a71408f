import { brand } from '../../brand.js'
import { checkInteger, closedError, P2pdmaError, typeError } from '../../errors.js'
import type { CpuAccessMode } from '../../kernel/cpu-access.js'
import type { Backing, CpuWindow } from './backing.js'
import { withSignal } from '../reservation/deadline.js'
import type { MovableBuffer } from './movable-buffer.js'
import { FENCE_TIMEOUT_MS, Usage } from '../reservation/reservation.js'

/** An open bracket of CPU access; the buffer does not move until it ends. */
export class CpuAccess {
  static {
    brand(this, (value) => #window in value, { promising: ['end'] })
  }

  readonly mode: CpuAccessMode
  readonly #window: CpuWindow
  readonly #onEnd: (access: CpuAccess) => void
  readonly #size: number
  #ended: Promise<void> | null = null

  /** @internal */
  constructor(
    mode: CpuAccessMode,
    window: CpuWindow,
    size: number,
    onEnd: (access: CpuAccess) => void,
  ) {
    this.mode = mode
    this.#window = window
    this.#size = size
    this.#onEnd = onEnd
  }

  /** A view of the buffer's bytes; detached (empty) once the bracket has ended. */
  view(offset = 0, length?: number): Uint8Array {
    if (this.#ended !== null) throw closedError('the bracket of CPU access')
    const most = this.#size - checkInteger('offset', offset, 0, this.#size)
    return this.#window.view(
      offset,
      checkInteger('length', length === undefined ? most : length, 0, most),
    )
  }

  /** Ends the bracket: detaches its views and lets moves go on. Idempotent. */
  end(): Promise<void> {
    this.#ended ??= this.#window.end().finally(() => this.#onEnd(this))
    return this.#ended
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end()
  }
}

/** A mover's turn: no new bracket opens until it is released. */
export interface HoldOff {
  /** Resolves when no bracket is open. */
  idle(): Promise<void>
  release(): void
}

/** Onto what the CPU does not reach. */
function blindWindow(isDone: Promise<void>): CpuWindow {
  const view = () => {
    throw new P2pdmaError('the CPU has no mapping there', { code: 'ERR_UNSUPPORTED' })
  }
  return { view, end: () => isDone }
}

/** The brackets hold a move off for too long. */
export function cpuTimedOut(timeoutMs: number): P2pdmaError {
  return new P2pdmaError(`the CPU did not end its access within ${timeoutMs} ms`, {
    code: 'ETIMEDOUT',
    hint: 'end the bracket of CPU access before the move; a move inside it waits for itself',
  })
}

/** A buffer's brackets. A mover that waits goes before brackets that are not open yet. */
export class CpuBrackets {
  readonly #open = new Set<CpuAccess>()
  #holdOffs = 0
  #changed: (() => void)[] = []

  get isIdle(): boolean {
    return this.#open.size === 0
  }

  async begin(
    buffer: MovableBuffer,
    mode: CpuAccessMode,
    signal: AbortSignal | undefined,
    open = (backing: Backing) => backing.openCpuWindow(mode),
  ): Promise<CpuAccess> {
    if (mode !== 'r' && mode !== 'w' && mode !== 'rw') {
      throw typeError('mode', "'r', 'w' or 'rw'", mode)
    }
    while (this.#holdOffs > 0) await withSignal(this.#change(), signal)
    await buffer.reservation.lock(undefined, { signal })
    try {
      buffer.checkOpen()
      // dma_resv_usage_rw(): a reader waits for writers, a writer for readers too.
      const others = mode === 'r' ? Usage.WRITE : Usage.READ
      await buffer.reservation.waitForOthers(others, { timeoutMs: FENCE_TIMEOUT_MS, signal })
      const window = await open(buffer.backing)
      // A close ends the brackets that it finds, and then waits for the lock.
      if (buffer.isClosed) {
        await window.end()
        throw closedError('the buffer')
      }
      const access = new CpuAccess(mode, window, buffer.size, (ended) => {
        this.#open.delete(ended)
        this.#wake()
      })
      this.#open.add(access)
      return access
    } finally {
      buffer.reservation.unlock()
    }
  }

  /** See MovableBuffer.inPlace(). */
  async inPlace<T>(
    buffer: MovableBuffer,
    mode: CpuAccessMode,
    use: (backing: Backing) => Promise<T>,
  ): Promise<T> {
    let done: () => void = () => undefined
    const isDone = new Promise<void>((resolve) => (done = resolve))
    const access = await this.begin(buffer, mode, undefined, (backing) =>
      backing.mapping === null ? Promise.resolve(blindWindow(isDone)) : backing.openCpuWindow(mode),
    )
    try {
      return await use(buffer.backing)
    } finally {
      done()
      await access.end()
    }
  }

  holdOff(): HoldOff {
    this.#holdOffs++
    let released = false
    return {
      idle: () => this.#idle(),
      release: () => {
        if (released) return
        released = true
        this.#holdOffs--
        this.#wake()
      },
    }
  }

  async #idle(): Promise<void> {
    while (this.#open.size > 0) await this.#change()
  }

  /** Ends all brackets: their views are detached under whoever still holds them. */
  closeAll(): Promise<PromiseSettledResult<void>[]> {
    return Promise.allSettled([...this.#open].map((access) => access.end()))
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve))
  }

  #wake(): void {
    const waiting = this.#changed
    this.#changed = []
    for (const resolve of waiting) resolve()
  }
}
