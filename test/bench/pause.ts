/**
 * What a move costs the channel that it stops, against the same steps in C++
 * (native/software/bench_pause.cc) on the same device: stop, until the device is
 * quiet, unmap, copy 64 KiB into memory that is there already, map, restart.
 * Nothing is in flight: the channel's peer holds a key to the buffer, so the
 * stop is the device's acknowledgement alone. The ratios are of the time on the
 * wall, in which C++ spins for the device and the event loop is woken by it.
 * What the heart adds is the CPU time of this thread from the gate's closing to
 * its opening, less that of C++ without its waiting. Those who listen on the
 * diagnostics channels, for the split, are in it.
 */
import * as library from '../../lib/index.js'
import { native, type PauseSplit } from '../../lib/native.js'
import { ratioOf, result, type Ratio, type Result } from './measure.js'
import { Pause, steps, type Split } from './pause-split.js'

const SIZE = 64 << 10
/** Of a slot that the importer, which counts from 0, does not come to. */
const THEIR_ID = (1 << 20) - 1

type Told = Split & { cpu: number }

export async function pauseSuite(quick: boolean): Promise<{ results: Result[]; ratios: Ratio[] }> {
  const { MovableBuffer, Access } = library
  const exporter = library.memfd()
  await using engine = new library.SoftwareEngine()
  await using buffer = await MovableBuffer.create(SIZE, exporter)
  // Without a minimum between two stops: its timer would be all that is measured.
  const importer = engine.importer({ minRunMs: 0 })
  const channel = importer.channel()
  channel.grant(await importer.attach(buffer))
  using pause = new Pause(() => native.threadCpuTime())
  const ours = async (): Promise<Told> => {
    await buffer.move(exporter)
    while (!channel.isRunning) await new Promise((resolve) => setImmediate(resolve))
    const split = pause.take()
    return { ...split, cpu: pause.cpu }
  }

  const device = engine.openChannel({ depth: 256, onCompletion: () => undefined })
  let here = await exporter.allocate(SIZE)
  engine.map(THEIR_ID, here, SIZE, Access.READ | Access.WRITE)
  engine.unseal(THEIR_ID)
  const theirs = async (): Promise<Told> => {
    const there = await exporter.allocate(SIZE)
    await there.populate()
    const split: PauseSplit = device.benchPause(THEIR_ID, there.mapping!)
    await here.free()
    here = there
    const { stop, unmap, copy, map, restart } = split
    return { ...split, total: stop + unmap + copy + map + restart }
  }

  const samples: [Told, Told][] = []
  for (let i = quick ? -1 : -50; i < (quick ? 5 : 1000); i++) {
    const first = await (i % 2 === 0 ? ours() : theirs())
    const second = await (i % 2 === 0 ? theirs() : ours())
    if (i >= 0) samples.push(i % 2 === 0 ? [first, second] : [second, first])
  }
  await here.free()
  const parameters = { bytes: SIZE }
  const us = (of: keyof Told) =>
    samples.map((pair) => pair.map((side) => side[of] / 1000) as [number, number])
  return {
    ratios: [...steps, 'cpu' as const].map((step) => {
      const name = step === 'total' ? 'pause_64k_vs_cpp' : `pause_64k_${step}_vs_cpp`
      return ratioOf(name, 'us', us(step), parameters)
    }),
    results: [
      result(
        'pause_64k_heart_cpu',
        'us',
        us('cpu').map(([a, b]) => a - b),
        { ...parameters, pairs: samples.length },
      ),
    ],
  }
}
