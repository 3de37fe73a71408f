/** Lines out of a stream of bytes, none longer than `LINE_MAX`. */
import { LINE_MAX, protocolError } from './messages.js'

const NEWLINE = 0x0a

export class Lines {
  readonly #complete: Uint8Array[] = []
  #begun: Uint8Array[] = []
  #begunBytes = 0
  #tooLong = false

  /** Bytes of a line whose newline has not come. */
  get begun(): number {
    return this.#begunBytes
  }

  push(chunk: Uint8Array): void {
    let from = 0
    while (!this.#tooLong) {
      const newline = chunk.indexOf(NEWLINE, from)
      const part = chunk.subarray(from, newline === -1 ? undefined : newline)
      // Found before it is kept: a line without an end costs no more than the longest right one.
      this.#tooLong = this.#begunBytes + part.length > LINE_MAX
      if (this.#tooLong) return
      if (part.length > 0) this.#begun.push(part)
      this.#begunBytes += part.length
      if (newline === -1) return
      this.#complete.push(Buffer.concat(this.#begun))
      this.#begun = []
      this.#begunBytes = 0
      from = newline + 1
    }
  }

  /** The next line without its newline, or null. Throws ERR_PROTOCOL where one is too long. */
  next(): Uint8Array | null {
    const line = this.#complete.shift()
    if (line !== undefined) return line
    if (this.#tooLong) throw protocolError(`a line of more than ${LINE_MAX} bytes`)
    return null
  }
}
