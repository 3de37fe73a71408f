/** perftest's programs: a server and a client, and the one line of figures that they print. */
import { readFileSync } from 'node:fs'
import { type Device, type Devices, perftestProgram } from './devices.js'
import { Program } from './program.js'

export interface Bandwidth {
  /** Bytes per second, and messages. */
  bandwidth: number
  rate: number
  /** Each so many work requests are signalled. */
  moderation: number
}

export interface Latency {
  /** Half a round trip, us: the median, and the mean. */
  median: number
  mean: number
}

const ADDRESS = '127.0.0.1'
/** A port that was just used may be refused. */
let port = 18_600

/** Its own clock fails it now and then, under emulation: it prints figures of 0. */
const TRIES = 3

export async function bandwidth(
  program: 'ib_write_bw' | 'ib_send_bw',
  devices: Devices,
  args: readonly (string | number)[],
): Promise<Bandwidth> {
  for (let tries = 1; ; tries++) {
    const said = await perftest(program, devices, args)
    const [, , , average, rate] = figures(program, said, 5)
    const moderation = /^ CQ Moderation +: (\d+)$/m.exec(said)?.[1]
    if (moderation === undefined) throw unreadable(program, said)
    if (average! > 0 && rate! > 0) {
      return {
        bandwidth: average! * 2 ** 20,
        rate: rate! * 1e6,
        moderation: Number(moderation),
      }
    }
    if (tries === TRIES) throw unreadable(program, said)
  }
}

export async function latency(
  devices: Devices,
  args: readonly (string | number)[],
): Promise<Latency> {
  const said = await perftest('ib_send_lat', devices, args)
  const [, , , , median, mean] = figures('ib_send_lat', said, 9)
  if (!(median! > 0 && mean! > 0)) throw unreadable('ib_send_lat', said)
  return { median: median!, mean: mean! }
}

/** What the client printed. */
async function perftest(
  name: string,
  { near, far }: Devices,
  args: readonly (string | number)[],
): Promise<string> {
  const path = perftestProgram(name)
  port++
  // -F: it cannot read the CPU's frequency here and need not.
  const of = (device: Device) => ['-d', device.name, '-x', device.gidIndex, '-p', port, '-F']
  await using server = new Program(path, [...of(far), ...args])
  while (!isListening(port)) {
    if (server.isOver) throw server.failure('it ended before it listened')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await using client = new Program(path, [...of(near), ...args, ADDRESS])
  const said = await client.ended()
  await server.ended()
  return said
}

/** Looked up, since who connects is taken for the client. */
function isListening(number: number): boolean {
  const local = `:${number.toString(16).toUpperCase().padStart(4, '0')} `
  return ['/proc/net/tcp', '/proc/net/tcp6'].some((path) =>
    readFileSync(path, 'utf8')
      .split('\n')
      .some((line) => line.includes(local) && line.includes(' 0A ')),
  )
}

/** The line under the headings: exactly so many numbers. Of few samples a percentile is 0. */
function figures(program: string, said: string, count: number): number[] {
  const lines = said.split('\n')
  const heading = lines.findIndex((line) => /^ #bytes +#iterations/.test(line))
  const words = heading < 0 ? [] : (lines[heading + 1] ?? '').trim().split(/\s+/)
  const numbers = words.map(Number)
  if (numbers.length !== count || !numbers.every((each) => Number.isFinite(each) && each >= 0)) {
    throw unreadable(program, said)
  }
  return numbers
}

function unreadable(program: string, said: string): Error {
  return new Error(`${program} printed what cannot be read:\n${said.trim()}`)
}
