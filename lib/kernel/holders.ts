/** Which processes have a file open. */
import type { System } from './system.js'

export interface Holder {
  pid: number
  /** The program's name; empty where it cannot be read. */
  program: string
}

/**
 * Those with a descriptor whose file `isIt` says yes to; `target` is what
 * /proc/PID/fd/FD names. Needs root to see the processes of others.
 */
export async function holdersOfFiles(
  system: System,
  isIt: (target: string, pid: string, fd: string) => boolean,
): Promise<Holder[]> {
  const holders: Holder[] = []
  for (const pid of system.list('/proc').filter((name) => /^\d+$/.test(name))) {
    const fds = `/proc/${pid}/fd`
    const holds = system.list(fds).some((fd) => {
      const target = system.link(`${fds}/${fd}`)
      return target !== null && isIt(target, pid, fd)
    })
    if (holds) holders.push({ pid: Number(pid), program: system.read(`/proc/${pid}/comm`) ?? '' })
    // One process's descriptors at a time: a big machine has very many.
    await new Promise((resolve) => setImmediate(resolve))
  }
  return holders
}
