/** The kernel's log, /dev/kmsg: Documentation/ABI/testing/dev-kmsg. */
import { constants, readSync } from 'node:fs'
import { brand } from '../brand.js'
import { closedError, looksLike, typeError } from '../errors.js'
import { native, type NativeFd } from '../native.js'
import { call, translate } from './call.js'
import { Ready, startWait, type Wait, type WaitOptions } from './poll.js'

const PATH = '/dev/kmsg'

/** More than the kernel puts into one read (PRINTK_MESSAGE_MAX). */
const RECORD_BYTES = 16384

/** So that one call takes a few milliseconds at most. */
const RECORDS_AT_ONCE = 1000

export interface KernelRecord {
  /** 0 (emergency) to 7 (debug). */
  level: number
  /** Who says it: 0 the kernel, 1 and more a program that wrote to /dev/kmsg (syslog(3)). */
  facility: number
  /** Counts all records since the boot. */
  sequence: number
  /** Microseconds of the kernel's log clock, which began at boot. */
  timeUs: number
  /** One message; without the lines that describe its device. */
  text: string
}

/**
 * What the kernel logs from the opening on. It is no counter of events: the
 * kernel limits how often it says the same, and drops the oldest when its
 * buffer is full (`lost`).
 */
export class KernelLog {
  static {
    brand(this, (value) => #fd in value)
  }

  readonly #fd: NativeFd
  readonly #buffer = Buffer.alloc(RECORD_BYTES)
  #waits = new Set<Wait>()
  /** The sequence number of the next record; null before the first. */
  #next: number | null = null
  #lost = 0

  /** @internal Use `KernelLog.open`. */
  constructor(fd: NativeFd) {
    if (!looksLike(fd, { number: 'number' })) {
      throw typeError('fd', 'a native descriptor', fd)
    }
    this.#fd = fd
  }

  /** EPERM or EACCES where the log is not for this user. */
  static open(): KernelLog {
    const fd = call(() => native.openFd(PATH, constants.O_RDONLY | constants.O_NONBLOCK), {
      path: PATH,
      doing: 'kmsg.open',
    })
    try {
      call(() => native.seekEnd(fd))
      return new KernelLog(fd)
    } catch (error) {
      fd.close()
      throw error
    }
  }

  get closed(): boolean {
    return this.#fd.number < 0
  }

  /** Records that were overwritten before they were read, so far. */
  get lost(): number {
    return this.#lost
  }

  /** What has been logged since the last call, oldest first; 1000 records at most. */
  read(): KernelRecord[] {
    this.#checkOpen()
    const records: KernelRecord[] = []
    while (records.length < RECORDS_AT_ONCE) {
      const text = this.#readOne()
      if (text === null) break
      const record = parseRecord(text)
      if (record === null) continue
      if (this.#next !== null) this.#lost += Math.max(0, record.sequence - this.#next)
      this.#next = record.sequence + 1
      records.push(record)
    }
    return records
  }

  /** Resolves when there is something to read; `close()` rejects it with ERR_CLOSED. */
  async readable(options: WaitOptions = {}): Promise<void> {
    this.#checkOpen()
    const wait = startWait(this.#fd, Ready.READABLE, options)
    this.#waits.add(wait)
    try {
      await wait.promise
    } finally {
      this.#waits.delete(wait)
    }
  }

  #readOne(): string | null {
    for (;;) {
      try {
        const bytes = readSync(this.#fd.number, this.#buffer, 0, RECORD_BYTES, null)
        return this.#buffer.toString('utf8', 0, bytes)
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (code === 'EAGAIN') return null
        if (code === 'EINTR') continue
        if (code !== 'EPIPE') throw translate(error)
        // Overwritten before it was read: the next read is of the oldest that is left.
        if (this.#next === null) this.#lost++
      }
    }
  }

  #checkOpen(): void {
    if (this.closed) throw closedError('The kernel log')
  }

  /** Idempotent. */
  close(): void {
    this.#fd.close()
    const waits = this.#waits
    this.#waits = new Set()
    for (const wait of waits) wait.cancel(closedError('The kernel log'))
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** `6,339,5140900,-;text`, then lines that begin with a blank. @internal */
export function parseRecord(record: string): KernelRecord | null {
  const [, priority, sequence, timeUs, text = ''] =
    /^(\d+),(\d+),(\d+),[^;]*;([^\n]*)/.exec(record) ?? []
  if (priority === undefined) return null
  return {
    level: Number(priority) & 7,
    facility: Number(priority) >> 3,
    sequence: Number(sequence),
    timeUs: Number(timeUs),
    text,
  }
}
