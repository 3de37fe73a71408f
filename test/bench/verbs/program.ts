/** A program at work, which may hang: it is killed with whoever waits for it, or when time is up. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'

const LONGEST_MS = 240_000

export class Program {
  readonly #name: string
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>
  readonly #timer: NodeJS.Timeout
  #said = ''
  #onSaid: (() => void)[] = []
  #isOver = false
  #isLate = false

  constructor(path: string, args: readonly (string | number)[]) {
    this.#name = path.split('/').at(-1) ?? path
    this.#child = spawn(path, args.map(String), { stdio: ['pipe', 'pipe', 'pipe'] })
    // What it printed tells how it ended; a closed pipe does not.
    this.#child.stdin?.on('error', () => {})
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#said += text
        this.#wake()
      })
    }
    this.#closed = once(this.#child, 'close').finally(() => {
      this.#isOver = true
      this.#wake()
    })
    this.#closed.catch(() => {})
    this.#timer = setTimeout(() => {
      this.#isLate = true
      this.#child.kill('SIGKILL')
    }, LONGEST_MS)
  }

  #wake(): void {
    for (const resolve of this.#onSaid.splice(0)) resolve()
  }

  get isOver(): boolean {
    return this.#isOver
  }

  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`)
  }

  /** What `pattern` finds in what it prints, as soon as it does. */
  async hears(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = pattern.exec(this.#said)
      if (found !== null) return found
      if (this.#isOver) throw this.failure('it ended too early')
      await new Promise<void>((resolve) => this.#onSaid.push(resolve))
    }
  }

  /** All that it printed, once it has ended well. */
  async ended(): Promise<string> {
    await this.#closed
    const { exitCode, signalCode } = this.#child
    if (exitCode !== 0) throw this.failure(`it ended with ${signalCode ?? exitCode}`)
    return this.#said
  }

  failure(what: string): Error {
    const why = this.#isLate ? `it did not end within ${LONGEST_MS} ms` : what
    return new Error(`${this.#name}: ${why}\n${this.#said.trim()}`)
  }

  /** Kills it, if it is not over. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer)
    if (!this.#isOver) this.#child.kill('SIGKILL')
    await this.#closed.catch(() => {})
  }
}
