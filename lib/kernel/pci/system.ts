/** What the kernel tells of its PCI devices in sysfs and proc, and how it is told to act. */
import { execFile } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
} from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { translate } from '../call.js'

const DEVICES = '/sys/bus/pci/devices'

/** Paths begin with `/` and lie below `root`, which is the real one except in tests. */
export class PciSystem {
  readonly #root: string

  constructor(root = '/') {
    this.#root = realpathSync(root)
  }

  get #isReal(): boolean {
    return this.#root === '/'
  }

  /** In a device's folder; without a name, the folder. */
  device(address: string, name = ''): string {
    return join(DEVICES, address, name)
  }

  exists(path: string): boolean {
    return existsSync(join(this.#root, path))
  }

  /** Without white space around it; null where it cannot be read. */
  read(path: string): string | null {
    try {
      return readFileSync(join(this.#root, path), 'utf8').trim()
    } catch {
      return null
    }
  }

  /** The names in a folder, sorted; none where there is no such folder. */
  list(path: string): string[] {
    try {
      return readdirSync(join(this.#root, path)).sort()
    } catch {
      return []
    }
  }

  /** What a link names, its last part; null where there is none. */
  linkName(path: string): string | null {
    const target = this.link(path)
    return target === null ? null : basename(target)
  }

  link(path: string): string | null {
    try {
      return readlinkSync(join(this.#root, path))
    } catch {
      return null
    }
  }

  /** Without links. */
  resolve(path: string): string | null {
    try {
      return realpathSync(join(this.#root, path))
    } catch {
      return null
    }
  }

  /** Tells the kernel, off the event loop: to unbind a device may take its driver seconds. */
  async write(path: string, text: string): Promise<void> {
    try {
      await writeFile(join(this.#root, path), text)
    } catch (error) {
      const hints = {
        EACCES: 'run as root',
        EPERM: 'run as root',
        EROFS: 'sysfs is read-only here',
      }
      throw translate(error, { hints })
    }
  }

  /** Whether somebody has the block device for himself: mounted in another namespace, or in a pool. */
  isClaimed(name: string): boolean {
    if (!this.#isReal) return false
    try {
      closeSync(openSync(join('/dev', name), constants.O_RDONLY | constants.O_EXCL))
      return false
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'EBUSY'
    }
  }

  /** Rejects with what modprobe has to say. */
  loadModule(name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      // Some users' PATH has no sbin.
      const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`
      const options = { env: { ...process.env, PATH: path } }
      execFile('modprobe', ['--', name], options, (error, _, stderr) => {
        if (error === null) resolve()
        else reject(new Error(stderr.trim() || error.message))
      })
    })
  }
}
