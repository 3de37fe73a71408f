/** Run by verbs-limits.test.ts where something is short: prints what came of it. */
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { SoftwareEngine } from '../../lib/engines/index.js'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { explain } from '../../lib/failures/index.js'
import { Memfd } from '../../lib/kernel/index.js'
import {
  ConnectionManager,
  type MemoryRegion,
  VerbsDevice,
  verbsDevices,
} from '../../lib/kernel/verbs/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
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

/** Those that libibverbs and librdmacm open for themselves. */
async function descriptors() {
  await using device = await VerbsDevice.open('rxe0')
  const held: number[] = []
  try {
    for (;;) held.push(openSync('/dev/null', 'r'))
  } catch {
    // That was the last one.
  }
  const refused = {
    list: await refusal(async () => verbsDevices()),
    open: await refusal(() => VerbsDevice.open('rxe1')),
    channel: await refusal(() => device.completionChannel()),
    connect: await refusal(() => ConnectionManager.open()),
  }
  for (const fd of held) closeSync(fd)
  return { refused, after: verbsDevices().map(({ name }) => name) }
}

/** In an rdma cgroup of one handle and a few objects. */
async function rdmaCgroup() {
  const device = await VerbsDevice.open('rxe0')
  const second = await refusal(() => VerbsDevice.open('rxe0'))
  const objects = await refusal(async () => {
    for (;;) await device.protectionDomain()
  })
  await device.close()
  return { second, objects }
}

/** A part of a huge page, where fork() is to be safe. */
async function forkSafe() {
  await using device = await VerbsDevice.open('rxe0')
  const domain = await device.protectionDomain()
  using file = Memfd.create(2 << 20, { hugetlb: 2 << 20 })
  using mapping = file.map()
  return { told: await refusal(() => domain.register(mapping, { length: 64 * KIB })) }
}

async function hugePages() {
  using file = Memfd.create(2 << 20, { hugetlb: 2 << 20 })
  return { told: await refusal(async () => file.map()) }
}

/** No thread more than there are now. */
async function threads(group = '') {
  await sleep(100)
  writeFileSync(`${group}/pids.max`, readFileSync(`${group}/pids.current`, 'utf8'))
  const told = await refusal(async () => new SoftwareEngine())
  writeFileSync(`${group}/pids.max`, 'max')
  return { told }
}

const [what = '', ...rest] = process.argv.slice(2)
const programs: Record<string, (...args: string[]) => Promise<object> | object> = {
  little: async () => ({ classes: await classes(), engine: await engine() }),
  none: queue,
  hint: () => explain({ code: 'ENOMEM', syscall: 'ibv_reg_mr_iova2', doing: 'verbs.register' }),
  descriptors,
  rdmaCgroup,
  forkSafe,
  hugePages,
  threads,
}
const found = await programs[what]?.(...rest)
process.stdout.write(JSON.stringify({ ...found, pinned: pinned() }))
