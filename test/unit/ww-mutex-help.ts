import { P2pdmaError } from '../../lib/errors.js'
import { type WwClass, WwMutex } from '../../lib/move-notify/reservation/ww-mutex.js'

/** Enough turns for anything that can happen to have happened. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve()
}

/** Watches a lock without waiting for it: `pending`, `held` or the error's code. */
export function watch(promise: Promise<void> | void): { state: string } {
  const watched = { state: 'pending' }
  Promise.resolve(promise).then(
    () => (watched.state = 'held'),
    (error: unknown) => (watched.state = error instanceof P2pdmaError ? error.code : 'other'),
  )
  return watched
}

export function mutexes(wwClass: WwClass, count: number): WwMutex[] {
  return Array.from({ length: count }, () => new WwMutex(wwClass))
}

export function pair(wwClass: WwClass): [WwMutex, WwMutex] {
  return [new WwMutex(wwClass), new WwMutex(wwClass)]
}

export function item<T>(list: readonly T[], index: number): T {
  const found = list[index]
  if (found === undefined) throw new Error(`nothing at ${index}`)
  return found
}
