/** Scenarios whose outcome is known, to test the scheduler itself. */
import type { World } from '../scheduler.js'

/** Writes down in which order many small things happen; runs on real promises as well. */
export async function ordering(log: string[]): Promise<void> {
  const turn = async (name: string, count: number) => {
    for (let index = 0; index < count; index++) {
      await null
      log.push(`${name}${index}`)
    }
  }
  const returned = async () => Promise.resolve('returned')
  const thrown = async () => {
    await null
    throw new Error('thrown')
  }
  const done = [
    turn('a', 12),
    returned().then((value) => log.push(value)),
    thrown().catch((error: unknown) => log.push(String(error))),
    Promise.all([1, Promise.resolve(2)]).then((values) => log.push(`all ${values.join()}`)),
    Promise.allSettled([thrown(), 1]).then((values) => log.push(`settled ${values[0].status}`)),
    Promise.race([turn('r', 2), turn('s', 1)]).then(() => log.push('race')),
    Promise.any([thrown(), turn('t', 1)]).then(() => log.push('any')),
    new Promise((resolve) => resolve(Promise.resolve('adopted'))).then(() => log.push('adopted')),
    Promise.resolve(3)
      .then()
      .then((value) => log.push(`through ${value}`)),
    turn('f', 1).finally(() => log.push('finally')),
    new Promise<void>((resolve) => queueMicrotask(resolve)).then(() => log.push('queued')),
  ]
  log.push('started')
  await Promise.all(done)
  log.push('all done')
}

export function modelled(world: World, log: string[]): void {
  world.expect('ordering', ordering(log))
}

export function letters(world: World, seen: string[]): void {
  let line = ''
  for (const [first, second] of ['ab', 'AB']) {
    world.action(`${first}`, () => {
      line += first
      world.action(`${second}`, () => (line += second))
    })
  }
  world.atEnd(() => seen.push(line))
}

export function turns(world: World, seen: string[]): void {
  let line = ''
  world.action('!', () => (line += '!'))
  world.event('e', () => (line += 'e'))
  void Promise.resolve()
    .then(() => (line += '1'))
    .then(() => (line += '2'))
    .then(() => (line += '3'))
  world.atEnd(() => seen.push(line))
}

export function timers(world: World, seen: string[]): void {
  let line = ''
  const started = performance.now()
  const tick = () => (line += `${performance.now() - started}.`)
  setTimeout(tick, 9)
  setTimeout(tick, 5)
  clearTimeout(setTimeout(() => (line += 'never'), 1))
  world.event('d', () => (line += 'd'))
  world.atEnd(() => seen.push(line))
}

export function stuck(world: World): void {
  world.describe(() => 'nobody answers')
  world.expect('the answer', new Promise(() => {}))
}

export function endless(): void {
  const again = (): Promise<void> => Promise.resolve().then(again)
  void again()
}

export function unhandled(world: World): void {
  world.event('reject', () => void Promise.reject(new Error('lost')))
}

export function handledInTime(world: World): void {
  world.event('reject', () => {
    const promise = Promise.reject(new Error('kept'))
    queueMicrotask(() => void promise.catch(() => {}))
  })
}

export function swallowed(world: World): void {
  void Promise.resolve()
    .then(() => world.fail('seen through the catch'))
    .catch(() => {})
}

/** A flag that is read before an await and relied on after it. */
export function race(world: World): void {
  let open = true
  world.action('close', () => (open = false))
  world.action('write', () => {
    const write = async () => {
      if (!open) return
      await null
      if (!open) world.fail('late write')
    }
    world.expect('write', write())
  })
}
