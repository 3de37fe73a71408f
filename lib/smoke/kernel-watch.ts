/** What the kernel had to complain of meanwhile, by its log. */
import type { P2pdmaError } from '../errors.js'
import { KernelLog } from '../kernel/index.js'
import { KernelComplaints, readComplaints } from '../kernel/kernel-complaints.js'

export interface KernelLogReport {
  /** Each as one line; null where the log cannot be read. */
  complaints: string[] | null
  /** Records that were overwritten before they were read. */
  lost: number
  /** Why it cannot be read; null where it can. */
  unreadable: string | null
}

export class KernelWatch {
  readonly #log: KernelLog | null
  readonly #complaints = new KernelComplaints()
  readonly #unreadable: string | null
  readonly #found: string[] = []
  #lost = 0

  /** From now on. */
  constructor() {
    let log: KernelLog | null = null
    let unreadable: string | null = null
    try {
      log = KernelLog.open()
    } catch (error) {
      const { message, hint } = error as P2pdmaError
      unreadable = hint === undefined ? message : `${message}; ${hint}`
    }
    this.#log = log
    this.#unreadable = unreadable
  }

  /** Reads what has come since the last call: often enough, the kernel's buffer is small. */
  look(): void {
    const log = this.#log
    if (log === null || log.closed) return
    readComplaints(log, this.#complaints)
    this.#lost = log.lost
  }

  /** Since the beginning. A complaint of which only the beginning has come is taken for whole. */
  report(): KernelLogReport {
    this.look()
    if (this.#log === null) return { complaints: null, lost: 0, unreadable: this.#unreadable }
    this.#found.push(...this.#complaints.take().map(({ summary }) => summary))
    return { complaints: [...this.#found], lost: this.#lost, unreadable: null }
  }

  /** Idempotent. */
  close(): void {
    this.#log?.close()
  }
}
