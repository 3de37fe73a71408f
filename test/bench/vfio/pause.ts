/**
 * What a move costs the receiver: its buffer, with receives posted into it,
 * goes from device memory to system memory and back. Split by what the
 * diagnostics channels tell, against the same in C (test/bench/e1000e/pause.c).
 */
import { openEngine } from '../../../lib/engines/index.js'
import { memfd, vfioBar } from '../../../lib/exporters/index.js'
import { Batch, Completions, Op, Status } from '../../../lib/move-notify/importer/batch.js'
import type { Channel } from '../../../lib/move-notify/importer/channel.js'
import { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import { quantile, ratioOf, type Ratio } from '../measure.js'
import { Pause, steps, type Split } from '../pause-split.js'
import type { Devices } from './devices.js'
import { runPeer } from './peer.js'

const FRAME = 1514
const ROOM = 2048
const DEPTH = 512

const directions = ['bar_to_system', 'system_to_bar'] as const

type Splits = Record<(typeof directions)[number], Split[]>

/** Posts one row; the channel may have to wait for its gate. */
async function postOne(channel: Channel, batch: Batch): Promise<void> {
  while (channel.post(batch, 0, 1) === 0) await channel.ready(batch, 0)
}

async function reapOne(channel: Channel, out: Completions): Promise<void> {
  while (channel.reap(out) === 0) await channel.completions()
  if (out.status[0] !== Status.OK || out.result[0] !== FRAME) {
    throw new Error(`status ${out.status[0]}, ${out.result[0]} bytes`)
  }
}

async function typescript(devices: Devices, size: number, moves: number): Promise<Splits> {
  const system = memfd()
  await using bar = vfioBar(devices.memory)
  await using buffer = await MovableBuffer.create(size, bar)
  await using frames = await MovableBuffer.create(4096, system)
  await using sender = await openEngine(`vfio:${devices.sender}`)
  await using receiver = await openEngine(`vfio:${devices.receiver}`)
  const [out, into] = [sender.importer(), receiver.importer({ minRunMs: 0 })]
  const tx = out.channel({ queue: 'tx', depth: DEPTH })
  const rx = into.channel({ queue: 'rx', depth: DEPTH })
  const from = await out.attach(frames)
  const to = await into.attach(buffer)
  const send = new Batch(1)
  send.op[0] = Op.SEND
  send.source[0] = from.id
  send.length[0] = FRAME
  const receive = new Batch(1)
  receive.op[0] = Op.RECEIVE
  receive.target[0] = to.id
  receive.length[0] = ROOM
  let behind = 0
  const postReceive = async () => {
    receive.targetOffset[0] = behind
    behind = (behind + ROOM) % size
    await postOne(rx, receive)
  }
  for (let i = 0; i < Math.min(size / ROOM, DEPTH); i++) await postReceive()

  // One frame through the buffer where it is now: each mapping is known to work.
  let next = 0
  const prove = async (byte: number) => {
    await frames.withCpuAccess('w', (cpu) => void cpu.view(0, FRAME).fill(byte))
    await postOne(tx, send)
    await Promise.all([reapOne(tx, new Completions(1)), reapOne(rx, new Completions(1))])
    const place = next
    next = (next + ROOM) % size
    // Device memory has no views.
    if (buffer.placement !== system.placement) return
    await buffer.withCpuAccess('r', (cpu) => {
      if (cpu.view(place, FRAME).some((each) => each !== byte)) {
        throw new Error('a frame is not where it should be')
      }
    })
  }
  await prove(1)

  const splits: Splits = { bar_to_system: [], system_to_bar: [] }
  using pause = new Pause()
  for (let move = 0; move < moves; move++) {
    const toSystem = move % 2 === 0
    await buffer.move(toSystem ? system : bar)
    while (!rx.isRunning) await new Promise((resolve) => setImmediate(resolve))
    splits[toSystem ? 'bar_to_system' : 'system_to_bar'].push(pause.take())
    await postReceive()
    await prove(move % 250)
  }
  return splits
}

function c(devices: Devices, size: number, moves: number): Splits {
  const { memory } = devices
  const told = runPeer('pause', devices, { memory, size, moves, depth: DEPTH, from: 'bar' }) as {
    moves: (Split & { from: 'bar' | 'system' })[]
  }
  const from = (place: 'bar' | 'system') => told.moves.filter((move) => move.from === place)
  return { bar_to_system: from('bar'), system_to_bar: from('system') }
}

/** Of a run's moves the later half: the first ones have everything to touch for the first time. */
function middle(splits: Split[], step: keyof Split): number {
  const later = splits.slice(splits.length >> 1).map((split) => split[step])
  return quantile(
    later.toSorted((a, b) => a - b),
    0.5,
  )
}

export async function pauseRatios(devices: Devices, quick: boolean): Promise<Ratio[]> {
  const ratios: Ratio[] = []
  for (const [name, size] of [
    ['64k', 64 << 10],
    ['16m', 16 << 20],
  ] as const) {
    const moves = quick ? 4 : size > 1 << 20 ? 8 : 400
    const runs: [Splits, Splits][] = []
    for (let run = 0; run < (quick ? 1 : 7); run++) {
      const first = run % 2 === 0 ? await typescript(devices, size, moves) : null
      const theirs = c(devices, size, moves)
      runs.push([first ?? (await typescript(devices, size, moves)), theirs])
    }
    for (const direction of directions) {
      for (const step of steps) {
        const samples = runs.map(
          (pair) => pair.map((side) => middle(side[direction], step) / 1000) as [number, number],
        )
        const suffix = step === 'total' ? '' : `_${step}`
        const parameters = { bytes: size, moves: (moves / 4) * runs.length }
        ratios.push(ratioOf(`pause_${name}_${direction}${suffix}`, 'us', samples, parameters))
      }
    }
  }
  return ratios
}
