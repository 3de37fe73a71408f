/**
 * DMA between devices: one NIC sends frames straight out of another device's
 * memory, a second NIC receives them straight into it. Halfway that target
 * moves to system memory, at the same IOVA; the receiver is stopped and started
 * by itself. Takes the addresses of sender, receiver and memory device, by
 * default of devices that are bound to vfio-pci (`p2pdma bind`).
 */
import { memfd, MovableBuffer, openEngine, pciDevices, vfioBar } from 'p2pdma'

const FRAMES = 64
const LENGTH = 1500
const SLOT = 2048

const bound = pciDevices().filter(({ driver }) => driver === 'vfio-pci')
const nics = bound.filter(({ vendor, device }) => vendor === 0x8086 && device === 0x10d3)
const others = bound.filter((each) => !nics.includes(each))
const found = [nics[0], nics[1], others[0]].map((each) => each?.address)
const [sender, receiver, card] = process.argv.length > 2 ? process.argv.slice(2) : found
if (sender === undefined || receiver === undefined || card === undefined) {
  console.log('bind two 82574 NICs and a device with memory: `p2pdma bind ADDRESS...`')
  process.exit()
}

await using tx = await openEngine(`vfio:${sender}`)
await using rx = await openEngine(`vfio:${receiver}`)
await using bar = vfioBar(card)
await using source = await MovableBuffer.create(FRAMES * SLOT, bar)
await using target = await MovableBuffer.create(FRAMES * SLOT, bar)
const out = tx.importer()
const into = rx.importer()
const from = await out.attach(source)
const to = await into.attach(target)

await source.withCpuAccess('w', (cpu) => {
  const bytes = cpu.view()
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 31) ^ (i >> 11)
  // To everybody, and of no protocol that anybody speaks.
  for (let at = 0; at < bytes.length; at += SLOT) {
    bytes.fill(0xff, at, at + 6)
    bytes.set([0x02, 0, 0, 0, 0, 1, 0x88, 0xb5], at + 6)
  }
})

const slots = Array.from({ length: FRAMES }, (_, slot) => slot)
const received = slots.map((slot) => into.receive(to, slot * SLOT, SLOT))
const send = (slot: number) => out.send(from, slot * SLOT, LENGTH)
await Promise.all(slots.slice(0, FRAMES / 2).map(send))
const { from: old, to: now, endMs } = await target.move(memfd())
await Promise.all(slots.slice(FRAMES / 2).map(send))
const bytes = (await Promise.all(received)).reduce((sum, each) => sum + each.bytes, 0)

const frames = (cpu: { view(): Uint8Array }) =>
  slots.map((slot) => Buffer.from(cpu.view().slice(slot * SLOT, slot * SLOT + LENGTH)))
const sent = await source.withCpuAccess('r', frames)
const got = await target.withCpuAccess('r', frames)
const same = sent.filter((frame, slot) => got[slot]?.equals(frame)).length
console.log(`${bytes} bytes in ${FRAMES} frames, ${same} of them as they were sent`)
console.log(`moved halfway from ${old} to ${now} in ${endMs.toFixed(1)} ms`)
if (same !== FRAMES) process.exitCode = 1
