/**
 * Makes each of a set of calls again and again, with the first allocation of the addon
 * failing, then the second, until there is none left to fail: each ends in a success
 * or in an error with a code. Its argument: the addon that can fail.
 */
import { createRequire } from 'node:module'
import type { Native } from '../../lib/native.js'

type Failing = Native & { failAllocation(n: number): boolean; liveAllocations(): number }

const native = createRequire(import.meta.url)(process.argv[2] ?? '') as Failing

/** No call has so many allocations. */
const MOST = 500

function shared<T>(type: new (memory: SharedArrayBuffer) => T, bytes: number): T {
  return new type(new SharedArrayBuffer(bytes))
}

const memfd = native.createMemfd('test', 2)
native.truncateFd(memfd, 65536)
const mapping = native.mapFd(memfd, 0, 65536, true, false, 0, false)
const events: number[] = []
const engine = native.openSoftwareEngine((_owner, event) => events.push(event))
engine.map(1, mapping, 0, 65536, 3)
const ROWS = 16
const owner = {}
const bell = () => shared(Uint32Array, 64)
const untold = () => shared(Uint32Array, 33 * 4)
const batch = {
  wide: Array.from({ length: 5 }, () => shared(Float64Array, ROWS * 8)),
  words: [shared(Uint32Array, ROWS * 4), shared(Uint32Array, ROWS * 4)],
  op: shared(Uint8Array, ROWS),
}
const out = {
  wide: [shared(Float64Array, ROWS * 8), shared(Float64Array, ROWS * 8)],
  words: [shared(Uint32Array, ROWS * 4), shared(Uint32Array, ROWS * 4)],
}
batch.op.fill(2)
batch.words[1]?.fill(1)
batch.wide[2]?.fill(64)

const calls: Record<string, () => unknown> = {
  openFd: () => native.openFd('/dev/null', 0).close(),
  dupFd: () => native.dupFd(memfd).close(),
  createMemfd: () => native.createMemfd('a name that needs memory of its own', 2).close(),
  statFd: () => native.statFd(memfd),
  mapFd: () => native.mapFd(memfd, 0, 4096, true, false, 0, false).unmap(),
  view: () => mapping.view(0, 4096),
  letGo: () =>
    native.letGo(native.mapFd(memfd, 0, 4096, true, false, 0, false), [native.dupFd(memfd)]),
  copySlice: () => native.copySlice(mapping, 0, mapping, 4096, 4096),
  fillSlice: () => native.fillSlice(mapping, 0, 4096, 1n),
  stampBlocks: () =>
    native.stampBlocks(mapping, new Float64Array([64]), new Float64Array([1]), 128, 1n),
  wrongArgument: () => {
    try {
      native.mapFd(memfd, -1, 4096, true, false, 0, false)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_OUT_OF_RANGE') throw error
    }
  },
  watchEventfd: () => {
    const fd = native.createEventfd()
    native.watchEventfd(fd, () => undefined).stop()
    fd.close()
  },
  pollFd: () => {
    const fd = native.createEventfd()
    native.pollFd(fd, 1, () => undefined)()
    fd.close()
  },
  openSoftwareEngine: () => native.openSoftwareEngine(() => undefined).close(),
  map: () => engine.map(1 << 19, mapping, 0, 64, 3),
  openChannel: () => engine.openChannel(16, owner, bell(), untold()).close(),
  traffic: async () => {
    const doorbell = bell()
    const channel = engine.openChannel(16, owner, doorbell, untold())
    channel.useUses(64, new Uint32Array(new SharedArrayBuffer(2 * 64 * 4)))
    try {
      const [sourceOffset, targetOffset, length, operand, cookie] = batch.wide as [
        Float64Array,
        Float64Array,
        Float64Array,
        Float64Array,
        Float64Array,
      ]
      const [source, target] = batch.words as [Uint32Array, Uint32Array]
      channel.useBatch(
        ROWS,
        sourceOffset,
        targetOffset,
        length,
        operand,
        cookie,
        source,
        target,
        batch.op,
      )
      const [outCookie, result] = out.wide as [Float64Array, Float64Array]
      const [status, epoch] = out.words as [Uint32Array, Uint32Array]
      channel.useCompletions(ROWS, outCookie, result, status, epoch)
      engine.inject(5, channel.index, -1, 0)
      engine.inject(3, 0, 0, 0)
      doorbell[1] = 8
      channel.post()
      channel.arm()
      for (let i = 0; i < 200 && (doorbell[7] ?? 0) === 0; i++) {
        await new Promise((resolve) => setTimeout(resolve, 1))
        channel.reap()
      }
      channel.stop()
      channel.force()
      channel.restart()
    } finally {
      channel.close()
    }
  },
}

const untyped: string[] = []
const made: string[] = []
for (const [name, call] of Object.entries(calls)) {
  let failed = 0
  for (let n = 1; n <= MOST; n++) {
    native.failAllocation(n)
    try {
      await call()
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (typeof code !== 'string') untyped.push(`${name} ${n}: ${String(error)}`)
    }
    if (!native.failAllocation(0)) break
    failed++
  }
  if (failed === MOST) untyped.push(`${name}: it never ends`)
  // Afterwards it works.
  await call()
  made.push(`${name} ${failed}`)
}
/** What is left when the garbage collector has been, of `count` calls. */
async function left(call: () => unknown, count: number): Promise<number> {
  const before = await liveNow()
  for (let i = 0; i < count; i++) await call()
  return (await liveNow()) - before
}

async function liveNow(): Promise<number> {
  for (let i = 0; i < 6; i++) {
    ;(globalThis as { gc?: () => void }).gc?.()
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return native.liveAllocations()
}

const COUNT = 300
const kept: string[] = []
for (const [name, call] of Object.entries(calls)) {
  // That of deliberate faults waits for its time: seconds.
  if (name === 'traffic') continue
  await left(call, 20)
  const rest = await left(call, COUNT)
  if (rest > COUNT / 4) kept.push(`${name}: ${rest} after ${COUNT} calls`)
}
engine.close()
console.log(JSON.stringify({ untyped, made, kept }))
