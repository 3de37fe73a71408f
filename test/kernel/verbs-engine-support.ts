/** Two verbs engines of the rig in one process, connected, for tests. */
import type { Test } from 'tap'
import { VerbsEngine, type VerbsEngineOptions } from '../../lib/engines/verbs/engine.js'
import type { Exporter } from '../../lib/move-notify/exporter/backing.js'
import type { ImporterOptions } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'

export const KIB = 1024

export async function open(
  t: Test,
  depth = 64,
  options: ImporterOptions = {},
  engines: VerbsEngineOptions = {},
) {
  const here = await VerbsEngine.open('rxe0', engines)
  const there = await VerbsEngine.open('rxe1', engines)
  t.teardown(async () => {
    await here.close()
    await there.close()
  })
  const peers = await here.pair(there)
  const [near, far] = peers
  const accepted = new Promise<string>((resolve) => far.once('queue', resolve))
  const queue = await near.openQueue({ depth })
  const [a, b] = [
    here.importer({ minRunMs: 0, ...options }),
    there.importer({ minRunMs: 0, ...options }),
  ]
  const ours = a.channel({ queue, depth })
  const theirs = b.channel({ queue: await accepted, depth })
  return { here, there, near, far, a, b, ours, theirs }
}

export async function buffer(t: Test, size: number, exporter: Exporter, byte = 0) {
  const made = await MovableBuffer.create(size, exporter, { poison: true })
  t.teardown(() => made.close())
  await made.withCpuAccess('w', (cpu) => void cpu.view().fill(byte))
  return made
}

export async function bytes(
  of: MovableBuffer,
  offset = 0,
  length = of.size - offset,
): Promise<Buffer> {
  let copy = Buffer.alloc(0)
  await of.withCpuAccess('r', (cpu) => void (copy = Buffer.from(cpu.view(offset, length))))
  return copy
}

export type Ends = Awaited<ReturnType<typeof open>>

export async function granted(
  { far, near, b, a, theirs }: Ends,
  target: MovableBuffer,
  label = 'target',
) {
  const attachment = await b.attach(target)
  far.grant(theirs, attachment, { label })
  const offer = await near.offered(label)
  return { attachment, remote: offer.attach(a) }
}

/** The queue pair of a channel goes to ERR, unless it is being connected anew. */
export function breakQueue(engine: VerbsEngine, queue: string | undefined): void {
  engine.inject({ kind: 'queue-pair-error', queue: queue ?? '' })
}
