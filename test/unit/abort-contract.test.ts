/**
 * One contract for AbortSignal in all waits: ABORT_ERR with the reason as its cause, nothing
 * taken, no listener left; ERR_INVALID_ARG_TYPE for what is no signal. A file of lib/ that
 * takes a signal and is neither in this table nor named with its test fails.
 */
import { execFileSync } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { constants, readdirSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Link } from '../../lib/engines/verbs/link/link.js'
import { memoryPair } from '../../lib/engines/verbs/link/memory-pair.js'
import { Ready, startWait } from '../../lib/kernel/poll.js'
import { OwnedFd } from '../../lib/kernel/owned-fd.js'
import { Batch, Op } from '../../lib/move-notify/importer/batch.js'
import { Fence } from '../../lib/move-notify/reservation/fence.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { reservationClass, Usage } from '../../lib/move-notify/reservation/reservation.js'
import { lockAll } from '../../lib/move-notify/reservation/ww-mutex.js'
import { native } from '../../lib/native.js'
import { FakeEngine, FakeExporter } from './fake-memory.js'
import { samples } from './verbs-link-help.js'

interface Wait {
  /** Begins it; it settles only when it is let go, or aborted. */
  start: (signal: AbortSignal | undefined) => unknown
  letGo: () => void
  /** What must be as before once it has been aborted. */
  left?: () => unknown
}

class Fifo extends OwnedFd {
  dup(): never {
    throw new Error('nobody wants one')
  }
  constructor(path: string) {
    super(native.openFd(path, constants.O_RDWR | constants.O_NONBLOCK))
  }
}

const folder = t.testdir({})
let made = 0

function fifo(): Fifo {
  const path = join(folder, `fifo${made++}`)
  execFileSync('mkfifo', [path])
  return new Fifo(path)
}

async function world() {
  const engine = new FakeEngine()
  const importer = new Importer(engine, { minRunMs: 0 })
  const exporter = new FakeExporter('here')
  const buffer = await MovableBuffer.create(4096, exporter)
  const attachment = await importer.attach(buffer)
  return { engine, importer, exporter, buffer, attachment }
}

/** A wait for a lock that somebody else holds. */
async function locked(
  wait: (buffer: MovableBuffer, importer: Importer) => (signal?: AbortSignal) => unknown,
): Promise<Wait> {
  const { buffer, importer } = await world()
  await buffer.reservation.lock()
  const { pins, attachments } = {
    pins: () => buffer.isPinned,
    attachments: () => buffer.attachments.length,
  }
  return {
    start: wait(buffer, importer),
    letGo: () => buffer.reservation.unlock(),
    left: () => [pins(), attachments(), importer.size, buffer.placement],
  }
}

async function operation(
  run: (w: Awaited<ReturnType<typeof world>>, signal?: AbortSignal) => unknown,
): Promise<Wait> {
  const w = await world()
  w.engine.held = true
  return { start: (signal) => run(w, signal), letGo: () => w.engine.resume() }
}

const waits: Record<string, () => Promise<Wait> | Wait> = {
  'Fence.wait': () => {
    const { fence, signal: letGo } = Fence.create()
    return { start: (signal) => fence.wait({ signal, timeoutMs: 1e6 }), letGo }
  },
  'Reservation.wait': () => reserved((of, signal) => of.wait(Usage.READ, { signal })),
  'Reservation.waitSettled': () => reserved((of, signal) => of.waitSettled(Usage.READ, { signal })),
  'WwMutex.lock': () => locked((b) => (signal) => b.reservation.lock(undefined, { signal })),
  'WwMutex.lockSlow': () =>
    locked((b) => (signal) => b.reservation.lockSlow(reservationClass.acquire(), { signal })),
  lockAll: () =>
    locked((b) => (signal) => lockAll(reservationClass.acquire(), [b.reservation], { signal })),
  'MovableBuffer.pin': () => locked((b) => (signal) => b.pin({ signal })),
  'MovableBuffer.beginCpuAccess': () =>
    locked((b) => (signal) => b.beginCpuAccess('r', { signal })),
  'MovableBuffer.withCpuAccess': () =>
    locked((b) => (signal) => b.withCpuAccess('r', () => 1, { signal })),
  'MovableBuffer.move': () =>
    locked((b) => (signal) => b.move(new FakeExporter('there'), { signal })),
  'MovableBuffer.move, for the CPU': async () => {
    const { buffer } = await world()
    const cpu = await buffer.beginCpuAccess('r')
    return {
      start: (signal) => buffer.move(new FakeExporter('there'), { signal }),
      letGo: () => void cpu.end(),
      left: () => buffer.placement,
    }
  },
  'MovableBuffer.create': () => {
    const exporter = new FakeExporter('slow')
    let letGo = () => {}
    const isFree = new Promise<void>((resolve) => (letGo = resolve))
    exporter.beforeAllocate = () => isFree
    return {
      start: (signal) => MovableBuffer.create(4096, exporter, { signal }),
      letGo,
      left: () => exporter.alive,
    }
  },
  'Importer.attach': () => locked((b, importer) => (signal) => importer.attach(b, { signal })),
  'Importer.fill': () =>
    operation((w, signal) => w.importer.fill(w.attachment, 0, 8, 1, { signal })),
  'Importer.copy': () =>
    operation((w, signal) => w.importer.copy(w.attachment, 0, w.attachment, 8, 8, { signal })),
  'Importer.fetchAdd': () =>
    operation((w, signal) => w.importer.fetchAdd(w.attachment, 0, 1, { signal })),
  'Channel.send': () =>
    operation((w, signal) => w.importer.channel().send(w.attachment, 0, 8, { signal })),
  'Channel.receive': () =>
    operation((w, signal) => w.importer.channel().receive(w.attachment, 0, 8, { signal })),
  'Channel.completions': () => batch((channel, _, signal) => channel.completions({ signal })),
  'Channel.ready': () => batch((channel, rows, signal) => channel.ready(rows, 0, { signal })),
  'startWait (SyncFile, DmaBuf, KernelLog)': () => {
    const pipe = fifo()
    return {
      start: (signal) => startWait(pipe.handle, Ready.READABLE, { signal, timeoutMs: 1e6 }).promise,
      letGo: () => void writeSync(pipe.fd, 'x'),
    }
  },
  'Link.open': () => {
    const [near, far] = memoryPair()
    return {
      start: (signal) => Link.open(near, samples.hello, { role: 'opener', signal }),
      letGo: () => far.destroy(),
    }
  },
}

/** Taken by these files too; held by the tests named. */
const elsewhere: Record<string, string> = {
  'engines/verbs/engine.ts': 'kernel/verbs-*.test.ts',
  'engines/verbs/offers.ts': 'kernel/verbs-*.test.ts',
  'engines/verbs/peer.ts': 'kernel/verbs-*.test.ts',
  'engines/verbs/meeting.ts': 'kernel/verbs-*.test.ts',
  'kernel/dma-buf.ts': 'by startWait',
  'kernel/verbs/cm-id.ts': 'kernel/verbs-cm.test.ts',
  'kernel/verbs/connection.ts': 'kernel/verbs-cm.test.ts',
  'kernel/verbs/connection-manager.ts': 'kernel/verbs-cm.test.ts',
  'rig/rig.ts': 'no wait of the public surface: rejects with the reason, an exit code',
}

async function reserved(
  wait: (of: MovableBuffer['reservation'], signal?: AbortSignal) => unknown,
): Promise<Wait> {
  const { buffer } = await world()
  const { reservation } = buffer
  const { fence, signal: letGo } = Fence.create()
  await reservation.lock()
  reservation.addFence(fence, Usage.WRITE)
  reservation.unlock()
  return { start: (signal) => wait(reservation, signal), letGo }
}

async function batch(
  wait: (channel: ReturnType<Importer['channel']>, rows: Batch, signal?: AbortSignal) => unknown,
): Promise<Wait> {
  const { engine, importer, attachment } = await world()
  engine.held = true
  const channel = importer.channel({ depth: 1 })
  const rows = new Batch(1)
  rows.op[0] = Op.FILL
  rows.target[0] = attachment.id
  rows.length[0] = 8
  channel.post(rows, 0, 1)
  return { start: (signal) => wait(channel, rows, signal), letGo: () => engine.resume() }
}

const real = () => new AbortController().signal
const revoked = Proxy.revocable(real(), {})
revoked.revoke()
const throwing = {
  get aborted(): boolean {
    throw new Error('a getter')
  },
}
const noSignals: Record<string, unknown> = {
  'a number': 5,
  null: null,
  'an object': {},
  'half a signal': { aborted: false, addEventListener() {} },
  'all of one, by looks': { aborted: false, addEventListener() {}, removeEventListener() {} },
  'its prototype': Object.create(AbortSignal.prototype) as unknown,
  'an EventTarget': new EventTarget(),
  'a proxy': new Proxy(real(), {}),
  'a revoked proxy': revoked.proxy,
  'throwing getters': throwing,
}

/** As an async call: what it throws at once counts too. */
async function outcome(work: () => unknown): Promise<unknown> {
  try {
    await work()
    return null
  } catch (error) {
    return error
  }
}

for (const [name, make] of Object.entries(waits)) {
  void t.test(name, async (t) => {
    for (const [what, signal] of Object.entries(noSignals)) {
      const wait = await make()
      const error = await outcome(() => wait.start(signal as AbortSignal))
      t.match(error, { code: 'ERR_INVALID_ARG_TYPE', argument: 'signal' }, what)
      wait.letGo()
    }
    const aborted = { code: 'ABORT_ERR', name: 'AbortError', cause: { message: 'mine' } }
    {
      const wait = await make()
      const before = wait.left?.()
      const signal = AbortSignal.abort(new Error('mine'))
      t.match(await outcome(() => wait.start(signal)), aborted, 'aborted before')
      t.equal(getEventListeners(signal, 'abort').length, 0)
      t.same(wait.left?.(), before, 'nothing has been taken')
      wait.letGo()
    }
    {
      const wait = await make()
      const before = wait.left?.()
      const controller = new AbortController()
      const error = outcome(() => wait.start(controller.signal))
      await new Promise((resolve) => setImmediate(resolve))
      controller.abort(new Error('mine'))
      // An allocation under way ends first.
      if (name === 'MovableBuffer.create') wait.letGo()
      t.match(await error, aborted, 'aborted meanwhile')
      t.equal(getEventListeners(controller.signal, 'abort').length, 0)
      t.same(wait.left?.(), before, 'nothing has been taken')
      wait.letGo()
    }
    {
      const wait = await make()
      const { signal } = new AbortController()
      const done = outcome(() => wait.start(signal))
      await new Promise((resolve) => setImmediate(resolve))
      wait.letGo()
      await done
      t.equal(getEventListeners(signal, 'abort').length, 0, 'no listener is left when it is done')
    }
  })
}

void t.test('every file that takes a signal is here, or says where', (t) => {
  const lib = fileURLToPath(new URL('../../../lib', import.meta.url))
  const files = readdirSync(lib, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !/^(smoke|cli)\//.test(name))
    .filter((name) => /\bsignal\??: AbortSignal/.test(readFileSync(join(lib, name), 'utf8')))
  const here = [
    'move-notify/reservation/deadline.ts',
    'move-notify/importer/abort-watch.ts',
    'move-notify/exporter/cpu-access.ts',
    'move-notify/reservation/fence.ts',
    'move-notify/importer/importer.ts',
    'move-notify/exporter/movable-buffer.ts',
    'move-notify/exporter/move.ts',
    'move-notify/importer/operation.ts',
    'move-notify/importer/operation-queue.ts',
    'move-notify/reservation/ww-mutex.ts',
    'kernel/poll.ts',
    'engines/verbs/link/link.ts',
    'engines/verbs/link/link-options.ts',
  ]
  const unknown = files.filter((file) => !here.includes(file) && !(file in elsewhere))
  t.same(unknown, [])
  t.end()
})
