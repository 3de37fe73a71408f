/** How long the event loop belongs to us at a time, in CPU time of its thread. */
import { native } from '../../lib/native.js'

/** CPU milliseconds of each turn of the event loop while `work` goes on. */
export async function turns(work: () => Promise<unknown>): Promise<number[]> {
  const samples: number[] = []
  let going = true
  let last = native.threadCpuTime()
  const probe = () => {
    const now = native.threadCpuTime()
    samples.push((now - last) / 1e6)
    last = native.threadCpuTime()
    if (going) setImmediate(probe)
  }
  setImmediate(probe)
  await work()
  going = false
  return samples
}

/** As many turns of an idle loop. */
export async function idleTurns(count: number): Promise<number[]> {
  let left = count
  return turns(
    () =>
      new Promise<void>((resolve) => {
        const next = () => (--left > 0 ? setImmediate(next) : resolve())
        next()
      }),
  )
}
