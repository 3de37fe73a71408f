/** Frames per second through two NICs, against the same loop in C (test/bench/e1000e/frames.c). */
import { openEngine } from '../../../lib/engines/index.js'
import { memfd } from '../../../lib/exporters/index.js'
import { Batch, Completions, Op, Status } from '../../../lib/move-notify/importer/batch.js'
import type { Channel } from '../../../lib/move-notify/importer/channel.js'
import { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import { pairs, type Ratio } from '../measure.js'
import type { Devices } from './devices.js'
import { runPeer } from './peer.js'

const FRAME = 1514
/** What RCTL.BSIZE says: a receive takes this much room. */
const ROOM = 2048
const DEPTH = 512

interface Side {
  channel: Channel
  batch: Batch
  out: Completions
}

/** A row for each place in the buffer: they are made once, and posted again and again. */
function side(channel: Channel, op: number, attachment: number, places: number): Side {
  const batch = new Batch(places)
  const sends = op === Op.SEND
  const offsets = sends ? batch.sourceOffset : batch.targetOffset
  const ids = sends ? batch.source : batch.target
  batch.op.fill(op)
  batch.length.fill(sends ? FRAME : ROOM)
  ids.fill(attachment)
  for (let place = 0; place < places; place++) {
    offsets[place] = place * ROOM
    batch.cookie[place] = place
  }
  return { channel, batch, out: new Completions(DEPTH) }
}

/** Posts the rows of `count` places; one doorbell. */
function post({ channel, batch }: Side, place: number, count: number): void {
  const accepted = channel.post(batch, place, count)
  if (accepted !== count) throw new Error(`${accepted} of ${count} rows were accepted`)
}

function reap({ channel, out }: Side, length: number): number {
  const count = channel.reap(out)
  const { status, result } = out
  for (let row = 0; row < count; row++) {
    if (status[row] !== Status.OK || result[row] !== length) {
      throw new Error(`status ${status[row]}, ${result[row]} bytes`)
    }
  }
  return count
}

/** The loop of frames.c; returns nanoseconds. */
function exchange(tx: Side, rx: Side, size: number, frames: number, places: number): number {
  let posted = 0
  let received = 0
  let sent = 0
  let done = 0
  const start = process.hrtime.bigint()
  while (received < frames || done < frames) {
    while (posted < frames && posted - received + size <= places) {
      post(rx, posted % places, size)
      posted += size
    }
    // Credit: a frame is sent only where a receive waits for it.
    if (sent + size <= posted && sent - done + size <= places) {
      post(tx, sent % places, size)
      sent += size
    }
    done += reap(tx, FRAME)
    received += reap(rx, FRAME)
  }
  return Number(process.hrtime.bigint() - start)
}

async function typescript(devices: Devices, size: number, frames: number): Promise<number> {
  const places = Math.floor(DEPTH / size) * size
  await using source = await MovableBuffer.create(places * ROOM, memfd())
  await using target = await MovableBuffer.create(places * ROOM, memfd())
  await source.withCpuAccess('w', (cpu) => {
    for (let place = 0; place < places; place++) {
      const frame = cpu.view(place * ROOM, FRAME)
      for (let i = 0; i < FRAME; i++) frame[i] = place + i
      frame.fill(0xff, 0, 6)
      frame.fill(0x02, 6, 12)
      frame.set([0x88, 0xb5], 12)
    }
  })
  await using sender = await openEngine(`vfio:${devices.sender}`)
  await using receiver = await openEngine(`vfio:${devices.receiver}`)
  const [out, into] = [sender.importer(), receiver.importer()]
  const tx = out.channel({ queue: 'tx', depth: DEPTH })
  const rx = into.channel({ queue: 'rx', depth: DEPTH })
  const from = await out.attach(source)
  const to = await into.attach(target)
  const sends = side(tx, Op.SEND, from.id, places)
  const receives = side(rx, Op.RECEIVE, to.id, places)
  const ns = exchange(sends, receives, size, frames, places)
  await checkBytes(source, target, Math.min(places, frames))
  return ns / frames
}

async function checkBytes(source: MovableBuffer, target: MovableBuffer, places: number) {
  await source.withCpuAccess('r', (sent) =>
    target.withCpuAccess('r', (got) => {
      for (let place = 0; place < places; place++) {
        const [a, b] = [sent, got].map((cpu) => Buffer.from(cpu.view(place * ROOM, FRAME)))
        if (a === undefined || b === undefined || !a.equals(b)) {
          throw new Error(`frame ${place} has other bytes`)
        }
      }
    }),
  )
}

/** How many frames per second, as a share of what the C program does. */
export async function framesRatios(devices: Devices, quick: boolean): Promise<Ratio[]> {
  const ratios: Ratio[] = []
  for (const size of [1, 32, 256]) {
    const frames = quick ? 512 : size === 1 ? 16_384 : 524_288
    const perSecond = (ns: number) => 1e9 / ns
    const c = () => {
      const { ns } = runPeer('frames', devices, { batch: size, frames, depth: DEPTH }) as {
        ns: number
      }
      return perSecond(ns / frames)
    }
    const ours = async () => perSecond(await typescript(devices, size, frames))
    const parameters = { batch: size, frames, bytes: FRAME }
    const name = `frames_batch${size}_vs_c`
    ratios.push(await pairs(name, quick ? 1 : 9, 'frames/s', ours, c, parameters))
  }
  return ratios
}
