/**
 * A process that drives the NICs and is killed: the kernel takes the device
 * away from it, its mappings with it, and somebody else can drive it.
 */
import t from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { memfd } from '../../lib/exporters/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { pinnedPages } from './support.js'
import { exchange, openTraffic, RECEIVER, SENDER, wrongFrames } from './vfio-traffic.js'

const child = fileURLToPath(new URL('./vfio-kill-child.js', import.meta.url))

t.setTimeout(900_000)

/** PCI_COMMAND_MASTER, as the device itself has it. */
function isMaster(address: string): boolean {
  const config = readFileSync(`/sys/bus/pci/devices/${address}/config`)
  return (config.readUInt16LE(4) & 4) !== 0
}

/** Until it says where it is; then kills it. What the state looked like just before. */
async function killIn(state: string): Promise<{ master: boolean[]; pinned: number }> {
  const process_ = spawn(process.execPath, [child, state], { stdio: ['ignore', 'pipe', 'inherit'] })
  const closed = once(process_, 'close')
  const [said] = (await Promise.race([once(process_.stdout, 'data'), closed])) as [unknown]
  if (String(said) !== 'there\n') throw new Error(`the child in ${state} ended: ${String(said)}`)
  const before = { master: [isMaster(SENDER), isMaster(RECEIVER)], pinned: pinnedPages() }
  process_.kill('SIGKILL')
  await closed
  return before
}

/** Drives both devices once; returns where the buffer was for the device. */
async function driveAgain(): Promise<{ iova: number | null; wrong: number[] }> {
  const traffic = await openTraffic()
  try {
    await using buffer = await MovableBuffer.create(1 << 20, memfd())
    const to = await traffic.into.attach(buffer)
    await exchange(traffic, to)
    const iova = traffic.receiver.iovaOf(to.id)
    return { iova, wrong: await wrongFrames(buffer) }
  } finally {
    await traffic.close()
  }
}

void t.test('killed in each state', async (t) => {
  const first = await driveAgain()
  t.strictSame(first.wrong, [], 'frames arrive')
  const pinned = pinnedPages()
  for (const state of ['running', 'stopping', 'stopped', 'unmapped', 'copying', 'restoring']) {
    const before = await killIn(state)
    t.strictSame(before.master, [true, true], `${state}: both devices were masters of the bus`)
    t.ok(before.pinned > pinned, `${state}: and pages were pinned`)
    t.strictSame([isMaster(SENDER), isMaster(RECEIVER)], [false, false], `${state}: no more`)
    t.equal(pinnedPages(), pinned, `${state}: no page is left pinned`)
    // The same IOVA as in a world where nobody had been killed.
    t.strictSame(await driveAgain(), first, `${state}: both can be driven again`)
  }
})
