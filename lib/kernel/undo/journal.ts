/**
 * What this process has changed outside of itself, and how it was before: written down
 * before it is changed, so that it can be put back whatever happens to the process.
 *
 * Each process has a file of its own below /run, with what it has not put back. Who ends
 * in good order, by a signal or by an exception puts it back himself; what a killed one
 * has left the next one puts back (`recover`).
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { P2pdmaError } from '../../errors.js'
import { explain } from '../../failures/index.js'
import { PciSystem } from '../pci/system.js'
import { type Change, describeChange, isChange, undoChange } from './changes.js'
import { isAlive, type Owner, thisProcess } from './owner.js'

export interface Recovered {
  /** Of the process that left it. */
  pid: number
  /** In words. */
  what: string
  /** Null where it has been put back, else why not. */
  error: string | null
}

/** One line for a reader. */
export function describeRecovered({ pid, what, error }: Recovered): string {
  const outcome = error === null ? 'put back' : `could not be put back: ${error}`
  return `process ${pid} was ended before its time: ${what}; ${outcome}`
}

interface Record {
  version: 1
  owner: Owner
  changes: Change[]
}

/** Where nobody else may write: root's is gone after a reboot, as are the changes. */
export function stateFolder(): string {
  if (process.getuid?.() === 0) return '/run/p2pdma'
  const { XDG_RUNTIME_DIR: runtime = '', XDG_STATE_HOME: state = '' } = process.env
  const base = [runtime, state].find((path) => path.startsWith('/'))
  return join(base ?? join(homedir(), '.local/state'), 'p2pdma')
}

const FILE = /^undo-\d+-\d+\.json$/

export class UndoJournal {
  readonly folder: string
  readonly #system: PciSystem
  readonly #owner: Owner
  /** Oldest first. */
  #changes: Change[] = []

  /** Another folder, another machine or another process: in tests. */
  constructor(folder = stateFolder(), system = new PciSystem(), owner = thisProcess(system)) {
    this.folder = folder
    this.#system = system
    this.#owner = owner
  }

  get #path(): string {
    return join(this.folder, `undo-${this.#owner.pid}-${this.#owner.startTime}.json`)
  }

  /** What has not been put back. */
  get changes(): readonly Change[] {
    return this.#changes
  }

  /**
   * Notes what is about to be changed; nothing may be changed where this throws:
   * ERR_NO_JOURNAL, since nobody could put it back.
   */
  note(change: Change): void {
    this.#changes.push(change)
    try {
      this.#write()
    } catch (cause) {
      this.#changes.pop()
      const { code = '', syscall } = cause as NodeJS.ErrnoException
      const why = explain({ code, syscall }).hint
      throw new P2pdmaError(`${describeChange(change)}: it could not be put back after a crash`, {
        code: 'ERR_NO_JOURNAL',
        hint: why ?? `${this.folder} has to be a folder that only this user may write to`,
        cause,
      })
    }
  }

  /** It is as it was, or was not changed after all. */
  forget(change: Change): void {
    this.#changes = this.#changes.filter((each) => each !== change)
    this.#write()
  }

  /** Puts one of them back, and forgets it; where that fails it throws, and stays noted. */
  undo(change: Change): void {
    undoChange(change, this.#system)
    this.forget(change)
  }

  /**
   * Puts back all that is left, the newest first, in one turn of the event loop; what
   * could not be, in words.
   */
  undoAll(): string[] {
    const failed: string[] = []
    for (const change of [...this.#changes].reverse()) {
      try {
        this.undo(change)
      } catch (error) {
        failed.push(`${describeChange(change)}: ${(error as Error).message}`)
      }
    }
    return failed
  }

  /**
   * Puts back what processes have left that were killed. What cannot be put back stays
   * noted, unless it is gone: another boot, or an interface that is another by now.
   */
  recover(): Recovered[] {
    const found: Recovered[] = []
    for (const name of this.#list()) {
      const path = join(this.folder, name)
      const record = readRecord(path)
      if (record === null) continue
      const { owner } = record
      if (owner.bootId !== this.#owner.bootId) {
        rmSync(path, { force: true })
        continue
      }
      if (isAlive(owner, this.#system)) continue
      const left: Change[] = []
      for (const change of [...record.changes].reverse()) {
        const what = describeChange(change)
        try {
          undoChange(change, this.#system)
          found.push({ pid: owner.pid, what, error: null })
        } catch (error) {
          const { code, message } = error as P2pdmaError
          found.push({ pid: owner.pid, what, error: message })
          if (code !== 'ENODEV') left.unshift(change)
        }
      }
      if (left.length === 0) rmSync(path, { force: true })
      else writeRecord(path, { ...record, changes: left })
    }
    return found
  }

  #list(): string[] {
    try {
      return isOurs(this.folder) ? readdirSync(this.folder).filter((name) => FILE.test(name)) : []
    } catch {
      return []
    }
  }

  #write(): void {
    if (this.#changes.length === 0) {
      rmSync(this.#path, { force: true })
      return
    }
    mkdirSync(this.folder, { recursive: true, mode: 0o700 })
    if (!isOurs(this.folder)) {
      throw new P2pdmaError(`Others may write to ${this.folder}`, { code: 'EPERM' })
    }
    writeRecord(this.#path, { version: 1, owner: this.#owner, changes: this.#changes })
  }
}

let ofProcess: UndoJournal | null = null

/** This process's own: it has one file, so there is one journal of it. */
export function processJournal(): UndoJournal {
  ofProcess ??= new UndoJournal()
  return ofProcess
}

/** Whether what is written there is this user's word, or root's. */
function isOurs(folder: string): boolean {
  const { uid, mode } = lstatSync(folder)
  return (uid === process.getuid?.() || uid === 0) && (mode & 0o022) === 0
}

/** Whole or not at all, also when the machine loses its power. */
function writeRecord(path: string, record: Record): void {
  const draft = `${path}.${process.pid}`
  const fd = openSync(
    draft,
    constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
    0o600,
  )
  try {
    writeSync(fd, JSON.stringify(record))
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(draft, path)
  syncFolder(dirname(path))
}

function syncFolder(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Null for what is nobody's word, or not understood. */
function readRecord(path: string): Record | null {
  let fd = -1
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    const { uid, mode } = fstatSync(fd)
    if ((uid !== process.getuid?.() && uid !== 0) || (mode & 0o022) !== 0) return null
    const record = JSON.parse(readFileSync(fd, 'utf8')) as Record
    const { version, owner, changes } = record
    if (Number(version) !== 1 || !Array.isArray(changes) || !changes.every(isChange)) return null
    const { pid, startTime, bootId, pidNamespace } = owner
    const numbers = [pid, startTime].every((each) => Number.isSafeInteger(each))
    const texts = [bootId, pidNamespace].every((each) => typeof each === 'string')
    return numbers && texts ? record : null
  } catch {
    return null
  } finally {
    if (fd >= 0) closeSync(fd)
  }
}
