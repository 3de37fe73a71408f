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
