/** Frames from one NIC of the rig to the other, as the tests of the engine `vfio` send them. */
import { VfioEngine } from '../../lib/engines/index.js'
import { memfd } from '../../lib/exporters/index.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import type { Importer, ImporterOptions } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'

/** The rig's devices, lib/rig/qemu.ts. */
export const MEMORY = '0000:00:10.0'
export const SENDER = '0000:00:11.0'
export const RECEIVER = '0000:00:12.0'

export const FRAME = 256
/** What the hardware wants for a receive. */
export const ROOM = 2048

export interface Traffic {
  sender: VfioEngine
  receiver: VfioEngine
  out: Importer
  into: Importer
  /** Frame `n` lies at `n * ROOM` and is filled with the byte `n + 1`. */
  frames: MovableBuffer
  from: Attachment
  close(): Promise<void>
}

const COUNT = 16

/** Opens both NICs; `options` are the receiver's importer's. */
export async function openTraffic(options: ImporterOptions = {}): Promise<Traffic> {
  const frames = await MovableBuffer.create(COUNT * ROOM, memfd())
  await frames.withCpuAccess('w', (cpu) => {
    for (let n = 0; n < COUNT; n++) cpu.view(n * ROOM, FRAME).fill(n + 1)
  })
  const sender = await VfioEngine.open(SENDER)
  const receiver = await VfioEngine.open(RECEIVER)
  const out = sender.importer()
  const into = receiver.importer(options)
  const from = await out.attach(frames)
  const close = async () => {
    await sender.close()
    await receiver.close()
    await frames.close()
  }
  return { sender, receiver, out, into, frames, from, close }
}

/** Sends 16 frames into `to`, from its start; resolves when all have come in. */
export async function exchange({ out, into, from }: Traffic, to: Attachment): Promise<void> {
  const received = Array.from({ length: COUNT }, (_, n) => into.receive(to, n * ROOM, ROOM))
  const sent = Array.from({ length: COUNT }, (_, n) => out.send(from, n * ROOM, FRAME))
  await Promise.all(sent)
  for (const { bytes } of await Promise.all(received)) {
    if (bytes !== FRAME) throw new Error(`a frame of ${bytes} bytes came in`)
  }
}

/** The frames that have other bytes than were sent; the buffer is in system memory. */
export function wrongFrames(buffer: MovableBuffer): Promise<number[]> {
  return buffer.withCpuAccess('r', (cpu) =>
    Array.from({ length: COUNT }, (_, n) => n).filter((n) =>
      cpu.view(n * ROOM, FRAME).some((byte) => byte !== n + 1),
    ),
  )
}
