/**
 * An archive in the "newc" cpio format, which the kernel unpacks as its first
 * root (Documentation/driver-api/early-userspace/buffer-format.rst).
 */
export class CpioArchive {
  readonly #parts: Buffer[] = []
  #inode = 1

  /** Adds a folder. Its parents come before it. */
  folder(name: string): this {
    return this.#entry(name, 0o040755, Buffer.alloc(0))
  }

  /** Adds a file; `mode` is its permissions. */
  file(name: string, content: Buffer | string, mode = 0o644): this {
    return this.#entry(name, 0o100000 | mode, Buffer.from(content))
  }

  /** Adds a symbolic link. */
  link(name: string, target: string): this {
    return this.#entry(name, 0o120777, Buffer.from(target))
  }

  /** Adds a character device. */
  device(name: string, major: number, minor: number): this {
    return this.#entry(name, 0o020600, Buffer.alloc(0), major, minor)
  }

  /** The archive, its end marker included; a multiple of 4 bytes, so that another may follow. */
  finish(): Buffer {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0))
    return Buffer.concat(this.#parts)
  }

  #entry(name: string, mode: number, content: Buffer, major = 0, minor = 0): this {
    const path = Buffer.from(`${name}\0`)
    // inode, mode, uid, gid, links, mtime, size, device, special device, name size, checksum
    const fields = [
      this.#inode++,
      mode,
      0,
      0,
      1,
      0,
      content.length,
      0,
      0,
      major,
      minor,
      path.length,
      0,
    ]
    const header = '070701' + fields.map((field) => field.toString(16).padStart(8, '0')).join('')
    this.#parts.push(padded(Buffer.concat([Buffer.from(header), path])), padded(content))
    return this
  }
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])
}
