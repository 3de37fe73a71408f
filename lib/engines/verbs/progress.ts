/**
 * Whether a queue pair gets anything through. The path may drop what it sends while the
 * control link works: then each reset succeeds, and nothing ever comes of it. So resets
 * without progress are bounded, by their number and by a time.
 */
import { P2pdmaError, checkInteger, checkMilliseconds } from '../../errors.js'
import { withDeadline } from '../../move-notify/reservation/deadline.js'
import { type QueueReset, trace } from '../../move-notify/trace.js'

export interface ProgressLimits {
  /** Resets in a row without progress after which a queue pair is given up. Default 8. */
  maxResets: number
  /** How long there may be no progress from the first of them on, ms. Default 10,000. */
  resetTimeoutMs: number
  /**
   * How long nothing that was sent may complete before the queue pair is reset, ms, beside a
   * second for each megabyte under way. Default 4000: a NIC says RETRY_EXC_ERR sooner.
   */
  stallTimeoutMs: number
}

const DEFAULTS: ProgressLimits = { maxResets: 8, resetTimeoutMs: 10_000, stallTimeoutMs: 4000 }

export function checkProgressLimits(
  options: Partial<ProgressLimits>,
  defaults = DEFAULTS,
): ProgressLimits {
  const {
    maxResets = defaults.maxResets,
    resetTimeoutMs = defaults.resetTimeoutMs,
    stallTimeoutMs = defaults.stallTimeoutMs,
  } = options
  return {
    stallTimeoutMs: checkMilliseconds('stallTimeoutMs', stallTimeoutMs),
    maxResets: checkInteger('maxResets', maxResets, 1),
    resetTimeoutMs: checkMilliseconds('resetTimeoutMs', resetTimeoutMs),
  }
}

/** Before the second reset of a row, ms; doubled for each further one. */
const FIRST_DELAY_MS = 50
const LONGEST_DELAY_MS = 2000

/** What a life of a queue pair has come to. */
export type LifeOutcome =
  /** A completion told of success, or something arrived, or a row has ended for good. */
  | 'progress'
  /** Nothing was tried. */
  | 'idle'
  /** Something was tried, and nothing got through. */
  | 'fruitless'

export class Progress {
  readonly #queue: string
  readonly #limits: ProgressLimits
  readonly #onLate: () => void
  #row = 0
  #total = 0
  #since = 0
  #isLate = false
  readonly #seen = new Map<string, number>()
  /** Ends the clock. */
  #stop: (() => void) | null = null

  /** `onLate`: called once when the time has passed; `isOver` says so from then on. */
  constructor(queue: string, limits: ProgressLimits, onLate: () => void) {
    this.#queue = queue
    this.#limits = limits
    this.#onLate = onLate
  }

  /** Resets in a row without progress. */
  get row(): number {
    return this.#row
  }

  /** Resets without progress so far. */
  get total(): number {
    return this.#total
  }

  get limits(): ProgressLimits {
    return this.#limits
  }

  /** Something that the device, or a call of it, has said: a status, an error's code. */
  note(what: string): void {
    this.#seen.set(what, (this.#seen.get(what) ?? 0) + 1)
  }

  /** The queue pair is broken: from now on time counts, unless it does already. */
  begin(): void {
    if (this.#stop !== null) return
    this.#since = performance.now()
    const done = new Promise<void>((resolve) => (this.#stop = resolve))
    const { resetTimeoutMs } = this.#limits
    const late = () => new P2pdmaError('no progress', { code: 'ETIMEDOUT' })
    withDeadline(done, resetTimeoutMs, late).catch(() => {
      if (this.#stop === null) return
      this.#isLate = true
      this.#onLate()
    })
  }

  /** It works again, or will never: no time counts. */
  #end(): void {
    this.#stop?.()
    this.#stop = null
    this.#isLate = false
    this.#seen.clear()
  }

  /** It has been connected again. What it was cut off in goes on counting until something gets through. */
  rejoined(): void {
    if (this.#row === 0) this.#end()
  }

  /** A life of the queue pair is over, as it has been judged. */
  endLife(outcome: LifeOutcome): void {
    if (outcome === 'fruitless') {
      this.#row++
      this.#total++
    } else if (outcome === 'progress') {
      this.#row = 0
      this.#end()
      this.begin()
    }
  }

  /** How long to wait before the next try, ms: the path may need a moment. */
  get delayMs(): number {
    if (this.#row < 2) return 0
    return Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (this.#row - 2))
  }

  /** Whether it is to be given up. */
  get isOver(): boolean {
    return this.#row > 0 && (this.#isLate || this.#row >= this.#limits.maxResets)
  }

  get isLate(): boolean {
    return this.#isLate
  }

  /** For the last time: nothing more is counted. */
  close(): void {
    this.#end()
  }

  publish(error: Error | null): void {
    if (!trace.reset.hasSubscribers) return
    const message: QueueReset = {
      queue: this.#queue,
      fruitless: this.#row,
      seen: Object.fromEntries(this.#seen),
      error,
      at: performance.now(),
    }
    trace.reset.publish(message)
  }

  /** Why it is given up. `path`: between whom, and whether our own port is active. */
  error(path: PathFacts): P2pdmaError {
    const seconds = ((performance.now() - this.#since) / 1000).toFixed(1)
    const seen = [...this.#seen].map(([what, times]) => `${what} x${times}`).join(', ')
    const said = seen === '' ? 'the device said nothing' : seen
    return new P2pdmaError(
      `${this.#queue}: nothing got through in ${this.#row} resets and ${seconds} s (${said})`,
      { code: 'ERR_NO_PROGRESS', hint: pathHint(path) },
    )
  }
}

/** Between whom. */
export interface PathFacts {
  /** Why our own port carries nothing; null where it is active. */
  portTrouble: string | null
  sgidIndex: number
  dgid: string
  /** Bytes. */
  pathMtu: number
}

const AFTER =
  'what was in flight may have been done: read the target to know; open another queue pair once the path is sound'

/** What is likely where nothing gets through, and what to do. */
export function pathHint({ portTrouble, sgidIndex, dgid, pathMtu }: PathFacts): string {
  if (portTrouble !== null) return `${portTrouble}; ${AFTER}`
  return (
    'likely: UDP port 4791 (RoCE) is filtered on the way, or ' +
    `the path carries less than the path MTU of ${pathMtu} bytes, or ` +
    `a GID is wrong (ours is entry ${sgidIndex}, the peer's ${dgid}), or the route to it is; ` +
    `the control link works; ${AFTER}`
  )
}
