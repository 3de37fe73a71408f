/** The verbs engine over dma-bufs: a NIC that registers them, and memory of other devices. */
import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { heap, memfd, udmabuf, vfioBar } from '../../lib/exporters/index.js'
import type { Exporter } from '../../lib/move-notify/exporter/backing.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { KIB, buffer, bytes, granted, open } from './verbs-engine-support.js'

t.setTimeout(900_000)

const SIZE = 64 * KIB

/** Writes into a buffer that wanders from one placement to the next, and reads it back. */
async function wander(t: Test, places: readonly Exporter[]): Promise<void> {
  const ends = await open(t)
  const { a, ours, there } = ends
  const source = await buffer(t, SIZE, memfd())
  const back = await buffer(t, SIZE, memfd())
  const [first] = places
  if (first === undefined) throw new Error('no placement')
  const target = await MovableBuffer.create(SIZE, first, { poison: true })
  t.teardown(() => target.close())
  const [from, into] = [await a.attach(source), await a.attach(back)]
  const { remote } = await granted(ends, target)
  for (let round = 0; round < 6; round++) {
    const { placement } = target
    const axes = there.axes(target.backing)
    t.match(axes, { registration: target.backing.isDmaBuf ? 'dma-buf' : 'memory', mover: 'us' })
    await source.withCpuAccess('w', (cpu) => void cpu.view().fill(20 + round))
    const pieces = Array.from({ length: 16 }, (_, i) =>
      ours.copy(from, i * 4 * KIB, remote, i * 4 * KIB, 4 * KIB),
    )
    const next = places[(round + 1) % places.length] ?? first
    await Promise.all([...pieces, target.move(next)])
    await ours.copy(remote, 0, into, 0, SIZE)
    const right = (await bytes(back)).every((byte) => byte === 20 + round)
    t.ok(right, `every byte, from ${placement} to ${target.placement}`)
  }
}

t.test('the device registers dma-bufs', async (t) => {
  const { here, a } = await open(t)
  t.equal(here.dmabufRefusal, null)
  const target = await buffer(t, SIZE, udmabuf())
  await a.attach(target)
  const attached = readFileSync('/sys/kernel/debug/dma_buf/bufinfo', 'utf8')
  t.match(attached, /Total [1-9]\d* devices attached/, 'seen by the kernel')
})

t.test('udmabuf, heap and memory', async (t) => {
  await wander(t, [udmabuf(), heap('system'), memfd()])
})

t.test("another device's memory", async (t) => {
  const bar = vfioBar('0000:00:10.0')
  t.teardown(() => bar.close())
  await wander(t, [bar, udmabuf()])
})
