/** What the kernel tells in sysfs and proc, and how it is told to act. */
import {
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { translate } from './call.js'

/** Paths begin with `/` and lie below `root`, which is the real one except in tests. */
export class System {
  readonly #root: string

  constructor(root = '/') {
    this.#root = realpathSync(root)
  }

  protected get isReal(): boolean {
    return this.#root === '/'
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
      throw translate(error, { doing: 'system.write' })
    }
  }

  /** Tells the kernel at once, for who has no other turn of the event loop. */
  writeSync(path: string, text: string): void {
    try {
      writeFileSync(join(this.#root, path), text)
    } catch (error) {
      throw translate(error, { doing: 'system.write' })
    }
  }
}
