/** Ping-pong in C by completion events: test/bench/verbs-peer, a process for each end. */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Device, Devices } from './devices.js'
import { Program } from './program.js'

const root = new URL('../../../../', import.meta.url)
const program = fileURLToPath(new URL('build/bench/verbs-peer', root))

/** Builds the program, where it is missing or older than its sources. */
export function buildPeer(): void {
  const script = fileURLToPath(new URL('scripts/build-peer.mjs', root))
  execFileSync(process.execPath, [script], { stdio: ['ignore', 'ignore', 'inherit'] })
}

export interface PingOptions {
  size: number
  depth: number
  warmUp: number
  iterations: number
}

/** The mean of half a round trip, us. */
export async function pingInC(
  { near, far }: Devices,
  { size, depth, warmUp, iterations }: PingOptions,
): Promise<number> {
  const start = (what: string, { name, gidIndex }: Device) =>
    new Program(program, [what, name, gidIndex, size, depth, warmUp, iterations])
  await using echo = start('echo', far)
  await using ping = start('ping', near)
  const ends = [echo, ping] as const
  const [there, here] = await Promise.all(ends.map((end) => end.hears(/^end \d+ \d+ \d+$/m)))
  echo.say(here![0])
  ping.say(there![0])
  await Promise.all(ends.map((end) => end.hears(/^ready$/m)))
  for (const end of ends) end.say('go')
  const said = await ping.ended()
  await echo.ended()
  const ns = /^\{"ns":(\d+)\}$/m.exec(said)?.[1]
  if (ns === undefined) throw ping.failure('it printed no figure')
  return Number(ns) / iterations / 2000
}
