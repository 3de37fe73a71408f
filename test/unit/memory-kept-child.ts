/**
 * Opens and closes many objects of each kind, in rounds, and prints by how much each kind has
 * grown for each object, in the round in which it grew least: bytes of V8's heap, and of the
 * process's own memory. Needs --expose-gc. Arguments: the most of both that are flat, and the
 * kinds, by default all.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { SoftwareEngine } from '../../lib/engines/software/engine.js'
import { memfd } from '../../lib/exporters/index.js'
import { Memfd } from '../../lib/kernel/index.js'
import { Batch } from '../../lib/move-notify/importer/batch.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'

const collect = (globalThis as { gc?: () => void }).gc ?? (() => undefined)

async function inUse(): Promise<{ heap: number; own: number }> {
  for (let i = 0; i < 4; i++) {
    collect()
    await sleep(5)
  }
  const status = readFileSync('/proc/self/status', 'utf8')
  const own = Number(/RssAnon:\s+(\d+)/.exec(status)?.[1] ?? NaN) * 1024
  return { heap: process.memoryUsage().heapUsed, own }
}

const engine = new SoftwareEngine()
const importer = engine.importer()
const buffer = await MovableBuffer.create(4096, memfd())
const attachment = await importer.attach(buffer)
const file = Memfd.create(4096)
const { signal } = new AbortController()

const kinds: Record<string, { count: number; make: () => unknown }> = {
  // So many that the first round takes what waits for a collection at most.
  engineChannel: {
    count: 10_000,
    make: () => {
      engine.openChannel({ depth: 16, onCompletion: () => undefined }).close()
    },
  },
  channel: { count: 2000, make: () => importer.channel({ depth: 16 }).close() },
  importer: { count: 2000, make: () => engine.importer().close() },
  attachment: { count: 2000, make: async () => (await importer.attach(buffer)).close() },
  buffer: { count: 500, make: async () => (await MovableBuffer.create(4096, memfd())).close() },
  mapping: { count: 4000, make: () => file.map().unmap() },
  view: {
    count: 2000,
    make: () => {
      const mapping = file.map()
      mapping.view(0, 64)
      mapping.unmap()
    },
  },
  batch: { count: 4000, make: () => new Batch(16) },
  // The same signal for all of them: what listens to it has to go.
  operation: { count: 4000, make: () => importer.fill(attachment, 0, 64, 1, { signal }) },
  refused: { count: 2000, make: () => importer.attach(file as never).catch(() => undefined) },
  move: { count: 500, make: () => buffer.move(memfd()) },
  engine: { count: 200, make: () => new SoftwareEngine().close() },
}

/** The first ones warm up; a kind that is not flat by then has some more: a collection may come late. */
const ROUNDS = { warm: 2, few: 4, most: 16 }

const [mostHeap, mostOwn, ...wanted] = process.argv.slice(2)
const found: Record<string, { heap: number; own: number; rounds: number }> = {}
for (const [name, { count, make }] of Object.entries(kinds)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  const grown = { heap: Infinity, own: Infinity, rounds: 0 }
  const isFlat = () => grown.heap < Number(mostHeap) && grown.own < Number(mostOwn)
  let before = await inUse()
  while (grown.rounds < ROUNDS.few || (grown.rounds < ROUNDS.most && !isFlat())) {
    for (let i = 0; i < count; i++) {
      await make()
      if (i % 50 === 49) await new Promise((resolve) => setImmediate(resolve))
    }
    const now = await inUse()
    if (grown.rounds++ >= ROUNDS.warm) {
      grown.heap = Math.min(grown.heap, (now.heap - before.heap) / count)
      grown.own = Math.min(grown.own, (now.own - before.own) / count)
    }
    before = now
  }
  found[name] = grown
}
await buffer.close()
await engine.close()
console.log(JSON.stringify(found))
