/** Which process, of which boot: its number alone may be another's by now. */
import type { System } from '../system.js'

export interface Owner {
  pid: number
  /** Clock ticks after boot at which it was started: proc(5), the 22nd field of stat. */
  startTime: number
  /** Of this boot of the machine: drivers/char/random.c. */
  bootId: string
  /** Where its number is its number. */
  pidNamespace: string
}

export function thisProcess(system: System): Owner {
  return {
    pid: process.pid,
    startTime: stateOf('self', system)?.startTime ?? 0,
    bootId: system.read('/proc/sys/kernel/random/boot_id') ?? '',
    pidNamespace: system.link('/proc/self/ns/pid') ?? '',
  }
}

/** In doubt it is. */
export function isAlive(owner: Owner, system: System): boolean {
  if (owner.pidNamespace !== thisProcess(system).pidNamespace) return true
  const state = stateOf(String(owner.pid), system)
  // Killed, and nobody has asked how it ended yet.
  if (state !== null) return state.startTime === owner.startTime && !'ZX'.includes(state.letter)
  try {
    process.kill(owner.pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

/** Behind the program's name, which may have anything in it. */
function stateOf(pid: string, system: System): { letter: string; startTime: number } | null {
  const text = system.read(`/proc/${pid}/stat`)
  if (text === null) return null
  const words = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { letter: words[0] ?? '', startTime: Number(words[19]) }
}
