/**
 * Two ends of a stream within the process, as a connected pair of sockets is:
 * what one writes the other reads in a later turn, a full one holds its writer
 * back, and one that is destroyed is gone for the other.
 */
import { Duplex } from 'node:stream'
import { P2pdmaError } from '../../../errors.js'

class MemoryEnd extends Duplex {
  #other: MemoryEnd | null = null
  /** A write of the other end's that has not been read yet. */
  #taken: (() => void) | null = null

  constructor() {
    // As sockets have it: one that reads the end ends.
    super({ allowHalfOpen: false })
  }

  join(other: MemoryEnd): void {
    this.#other = other
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    // Never within the writer's own call: neither does a socket.
    setImmediate(() => {
      const other = this.#other
      if (other === null || other.destroyed) done(gone())
      else if (other.push(chunk)) done()
      else other.#taken = done
    })
  }

  /** What was written since the last turn goes at once. */
  override _writev(chunks: readonly { chunk: Buffer }[], done: (error?: Error) => void): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'buffer', done)
  }

  override _final(done: (error?: Error) => void): void {
    setImmediate(() => {
      if (this.#other?.destroyed === false) this.#other.push(null)
      done()
    })
  }

  override _read(): void {
    const taken = this.#taken
    this.#taken = null
    taken?.()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const other = this.#other
    // A writer that waits for us waits no longer; its next write fails.
    this._read()
    setImmediate(() => {
      if (other?.destroyed === false && !other.readableEnded) other.push(null)
    })
    done(error)
  }
}

function gone(): P2pdmaError {
  return new P2pdmaError('The other end of the pair is gone', { code: 'EPIPE', syscall: 'write' })
}

/** Two streams; what is written to one is read from the other. */
export function memoryPair(): [Duplex, Duplex] {
  const [a, b] = [new MemoryEnd(), new MemoryEnd()]
  a.join(b)
  b.join(a)
  return [a, b]
}
