/** stdout and stderr of a command that says something for as long as it runs. */
import { constants } from 'node:os'

/**
 * Says on stderr, by the name of `who`, that the output cannot be written; returns the exit
 * code. Where nobody reads it, it is as if the signal had ended us, and nothing is said.
 */
export function brokenOutput(who: string, error: NodeJS.ErrnoException): number {
  if (error.code === 'EPIPE') return 128 + constants.signals.SIGPIPE
  process.stderr.write(`${who}: the output cannot be written: ${error.message}\n`)
  return 1
}

/** Beside the callback of a write, which tells us, the stream emits the error as well. */
const known = () => undefined

/**
 * Writes to stdout and stderr. When nobody reads any more, or the disk is full,
 * it calls `failed` with an exit code, once, and drops the rest.
 */
export class Output {
  readonly #command: string
  readonly #failed: (code: number) => void
  #broken = false
  #last: Promise<void> = Promise.resolve()

  /** `command`: who says on stderr what went wrong. */
  constructor(command: string, failed: (code: number) => void) {
    this.#command = command
    this.#failed = failed
    for (const stream of [process.stdout, process.stderr]) {
      // A process may have many of these.
      if (!stream.listeners('error').includes(known)) stream.on('error', known)
    }
  }

  write(stream: NodeJS.WriteStream, text: string): void {
    if (this.#broken) return
    this.#last = new Promise((resolve) => {
      stream.write(text, (error) => {
        if (error !== null && error !== undefined) this.#break(error)
        resolve()
      })
    })
  }

  /** All that was written has arrived, or has failed. */
  flushed(): Promise<void> {
    return this.#last
  }

  #break(error: NodeJS.ErrnoException): void {
    if (this.#broken) return
    this.#broken = true
    this.#failed(brokenOutput(`p2pdma ${this.#command}`, error))
  }
}
