/** What a command does when it is ended before its time: what it has changed is put back. */
import { constants } from 'node:os'

/** Those that end a process, and can be caught: signal(7). */
const SIGNALS = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGALRM',
  'SIGVTALRM',
  'SIGXCPU',
  'SIGXFSZ',
  'SIGPWR',
  'SIGUSR2',
] as const

/** Calls `handler` with the exit code for each signal that comes. Returns what ends that. */
export function onSignals(handler: (code: number) => void): () => void {
  const ends = SIGNALS.map((name) => {
    const each = () => handler(128 + constants.signals[name])
    process.on(name, each)
    return () => process.off(name, each)
  })
  return () => {
    for (const end of ends) end()
  }
}

const HANGUP = 128 + constants.signals.SIGHUP

/**
 * The first signal ends a run in good order, the second at once; but for SIGHUP, of which
 * a terminal that goes away gives two, by the kernel and by the shell.
 */
export class Interrupt {
  readonly #abort = new AbortController()
  #exitCode: number | null = null
  #isSignalled = false
  /** Takes the handlers away. */
  readonly stop: () => void

  constructor() {
    this.stop = onSignals((code) => this.#signalled(code))
  }

  #signalled(code: number): void {
    if (this.#isSignalled) {
      if (code === HANGUP) return
      process.exit(code)
    }
    this.#isSignalled = true
    // Where the output broke first, it was the terminal that went.
    this.#exitCode = code
    this.#abort.abort()
  }

  /** Ends the run in good order. */
  end(code: number): void {
    this.#exitCode ??= code
    this.#abort.abort()
  }

  /** Null where nothing ended the run. */
  get exitCode(): number | null {
    return this.#exitCode
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }
}

/**
 * Whatever ends the process, but for SIGKILL and the like, puts back what it has
 * changed: an exit, an exception that nobody catches. Returns what ends that.
 */
export async function putBackAtExit(): Promise<() => void> {
  const { processJournal } = await import('../kernel/undo/journal.js')
  const onExit = () => {
    for (const failed of processJournal().undoAll()) {
      process.stderr.write(`p2pdma: not put back, the next run tries again: ${failed}\n`)
    }
  }
  process.on('exit', onExit)
  return () => process.off('exit', onExit)
}

/** For those that say it in a report of their own there is `UndoJournal.recover()`. */
export async function putBackWhatIsLeft(): Promise<void> {
  const { describeRecovered, processJournal } = await import('../kernel/undo/journal.js')
  for (const each of processJournal().recover()) {
    process.stderr.write(`p2pdma: ${describeRecovered(each)}\n`)
  }
}
