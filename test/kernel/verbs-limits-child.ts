/** Run by verbs-limits.test.ts where little memory may be locked: prints what came of it. */
import { readFileSync } from 'node:fs'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { explain } from '../../lib/failures/index.js'
import { Memfd } from '../../lib/kernel/index.js'
import { type MemoryRegion, VerbsDevice } from '../../lib/kernel/verbs/index.js'
import { MovableBuffer } from '../../lib/move-notify/movable-buffer.js'
import { rdmaResources } from './verbs-support.js'

const KIB = 1024
const BIG = 1024 * KIB

/** What is pinned for RDMA: drivers/infiniband/core/umem.c, ib_umem_get(). */
const pinned = () =>
  Number(/^VmPin:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * KIB

async function refusal(work: () => Promise<unknown> | MemoryRegion): Promise<unknown> {
  try {
    await work()
    return 'not refused'
  } catch (error) {
    const { code, errno, syscall, hint } = error as NodeJS.ErrnoException & { hint?: string }
    return { code, errno, syscall, hint }
  }
}

/** The classes: whole, and what is left of the limit. */
async function classes() {
  await using device = await VerbsDevice.open('rxe0')
  const domain = await device.protectionDomain()
  using file = Memfd.create(BIG)
  using mapping = file.map()
  const before = rdmaResources()
  const refused = [
    await refusal(() => domain.register(mapping)),
    await refusal(() => domain.registerNow(mapping)),
  ]
  const left = { pinned: pinned(), isClean: rdmaResources() === before }
  const fits = await domain.register(mapping, { length: 128 * KIB })
  const rest = await refusal(() => domain.register(mapping, { length: 192 * KIB }))
  const half = pinned()
  await fits.close()
  return { refused, left, rest, half, after: pinned() }
}

async function engine() {
  await using here = await VerbsEngine.open('rxe0')
  await using there = await VerbsEngine.open('rxe1')
  const [near] = await here.pair(there)
  const importer = here.importer({ minRunMs: 0 })
  await near.openQueue({ depth: 16 })
  const [before, pinnedBefore] = [rdmaResources(), pinned()]
  const refused: unknown[] = []
  for (const exporter of [memfd(), udmabuf()]) {
    await using big = await MovableBuffer.create(BIG, exporter)
    refused.push(await refusal(() => importer.attach(big)))
    refused.push({ attachments: big.attachments.length, moved: (await big.move(memfd())).to })
  }
  const left = { pinned: pinned() - pinnedBefore, isClean: rdmaResources() === before }
  await using small = await MovableBuffer.create(64 * KIB, memfd())
  await importer.attach(small)
  return { refused, left, goesOn: (await small.move(udmabuf())).to }
}

/** Not even what a queue pair needs for itself. */
async function queue() {
  await using here = await VerbsEngine.open('rxe0')
  await using there = await VerbsEngine.open('rxe1')
  const [near] = await here.pair(there)
  const before = rdmaResources()
  const refused = await refusal(() => near.openQueue({ depth: 16 }))
  return { refused, isClean: rdmaResources() === before, pinned: pinned() }
}

const [what] = process.argv.slice(2)
const found =
  what === 'little'
    ? { classes: await classes(), engine: await engine() }
    : what === 'none'
      ? await queue()
      : explain({ code: 'ENOMEM', syscall: 'ibv_reg_mr_iova2', doing: 'verbs.register' })
process.stdout.write(JSON.stringify({ ...found, pinned: pinned() }))
