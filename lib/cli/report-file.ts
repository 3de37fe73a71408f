/**
 * The file that a report goes to, by the name that the user gave. A regular file has the
 * whole of the report or is as it was before: it is written beside, and renamed. What is
 * none (a FIFO, a device) is written where it is.
 */
import { randomBytes } from 'node:crypto'
import {
  accessSync,
  appendFileSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs'
import { Socket } from 'node:net'
import { basename, dirname, join, resolve } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { waitUntil } from '../kernel/patience.js'

/** How long a FIFO may be without a reader, and its reader may take nothing, ms. */
const READER_MS = 10_000
const LOOK_MS = 20

/** Of a folder that takes no second file, or a file that something is mounted on. */
const NOT_BESIDE = ['EACCES', 'EPERM', 'EROFS', 'EBUSY', 'EXDEV']

export class ReportFile {
  readonly #name: string
  readonly #path: string
  readonly #readerMs: number

  /**
   * Looks whether it can be written to, and touches nothing. Throws what the system
   * says where it cannot.
   */
  constructor(name: string, readerMs = READER_MS) {
    this.#name = name
    this.#readerMs = readerMs
    this.#path = this.#explained(() => follow(resolve(name)))
    this.#explained(() => this.#look())
  }

  #look(): void {
    const before = statOf(this.#path)
    if (before === null) accessSync(dirname(this.#path), constants.W_OK | constants.X_OK)
    // To open a FIFO may wait, and to open a device may do something.
    else if (before.isFIFO() || before.isCharacterDevice() || before.isBlockDevice())
      accessSync(this.#path, constants.W_OK)
    else closeSync(openSync(this.#path, constants.O_WRONLY))
  }

  /**
   * Rejects where not all of it could be written: ETIMEDOUT for a FIFO that nobody reads.
   * A regular file is as it was then.
   */
  async write(text: string): Promise<void> {
    const before = this.#explained(() => statOf(this.#path))
    if (before?.isFIFO() === true) return this.#writeFifo(text)
    this.#explained(() => {
      // Where the shell has opened it, it is that very file which is to be written.
      const isOpen = /^\/proc\/\d+\/(task\/\d+\/)?fd\/\d+$/.test(this.#path)
      if (before?.isFile() === false || isOpen) appendFileSync(this.#path, text)
      else this.#writeBeside(text, before)
    })
  }

  #writeBeside(text: string, before: Stats | null): void {
    const draft = join(
      dirname(this.#path),
      `.p2pdma-${process.pid}-${randomBytes(6).toString('hex')}`,
    )
    try {
      writeDraft(draft, text, before)
      renameSync(draft, this.#path)
    } catch (error) {
      rmSync(draft, { force: true })
      const { code = '' } = error as NodeJS.ErrnoException
      if (before === null || !NOT_BESIDE.includes(code)) throw error
      writeOver(this.#path, text)
    }
  }

  async #writeFifo(text: string): Promise<void> {
    const fd = await this.#openFifo()
    const socket = new Socket({ fd, readable: false, writable: true })
    await new Promise<void>((resolve, reject) => {
      socket.setTimeout(this.#readerMs, () => socket.destroy(this.#unread()))
      socket.on('error', (error) => reject(this.#explain(error)))
      socket.end(text, () => resolve())
    })
  }

  /** Without waiting in the kernel, where no signal would reach us: fifo(7), ENXIO. */
  async #openFifo(): Promise<number> {
    let fd = -1
    const isOpen = () => {
      try {
        fd = openSync(this.#path, constants.O_WRONLY | constants.O_NONBLOCK)
        return true
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENXIO') return false
        throw this.#explain(error)
      }
    }
    if (await waitUntil(isOpen, this.#readerMs, LOOK_MS)) return fd
    throw this.#unread()
  }

  #unread(): P2pdmaError {
    const seconds = this.#readerMs / 1000
    return new P2pdmaError(`the report cannot be written: nobody reads ${this.#name}`, {
      code: 'ETIMEDOUT',
      hint: `it is a FIFO, which somebody has to read within ${seconds} s`,
    })
  }

  #explained<T>(work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw this.#explain(error)
    }
  }

  #explain(error: unknown): Error {
    if (error instanceof P2pdmaError) return error
    const { code = 'ERR_SYSTEM', errno, syscall, message } = error as NodeJS.ErrnoException
    // As Node has it: `ENOSPC: no space left on device, write`.
    const [, what = message] = /^\w+: (.*?)(?:, \w+.*)?$/.exec(message) ?? []
    return new P2pdmaError(`the report cannot be written to ${this.#name}: ${what}`, {
      ...{ code, errno, syscall, cause: error },
    })
  }
}

/** Null where there is none. */
function statOf(path: string): Stats | null {
  return statSync(path, { throwIfNoEntry: false }) ?? null
}

/**
 * What symbolic links come to, the last of which may lead to nothing yet. The links of
 * /proc are not followed: where they lead is no path to write to.
 */
function follow(path: string, left = 40): string {
  const here = join(realpathSync(dirname(path)), basename(path))
  const isLink = lstatSync(here, { throwIfNoEntry: false })?.isSymbolicLink() === true
  if (!isLink || here.startsWith('/proc/')) return here
  if (left === 0) return realpathSync(here)
  return follow(resolve(dirname(here), readlinkSync(here)), left - 1)
}

/** The whole of it, with the mode and the owner of the one that it takes the place of. */
function writeDraft(path: string, text: string, before: Stats | null): void {
  const fd = openSync(path, 'wx')
  try {
    if (before !== null) {
      fchmodSync(fd, before.mode & 0o7777)
      const isOurs = before.uid === process.getuid?.() && before.gid === process.getgid?.()
      if (!isOurs) give(fd, before)
    }
    writeFileSync(fd, text)
    // Some file systems find only now that there is no room.
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** As far as that is allowed. */
function give(fd: number, { uid, gid, mode }: Stats): void {
  try {
    fchownSync(fd, uid, gid)
    // It takes set-id bits away.
    fchmodSync(fd, mode & 0o7777)
  } catch {
    // It is ours then.
  }
}

/** Replaces what a regular file has; one that does not get the whole of it is left empty. */
function writeOver(path: string, text: string): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_TRUNC)
  try {
    writeFileSync(fd, text)
  } catch (error) {
    ftruncateSync(fd)
    throw error
  } finally {
    closeSync(fd)
  }
}
