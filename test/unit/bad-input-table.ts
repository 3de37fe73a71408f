/** The public surface: for each callable its parameters, with what they take. */
import * as index from '../../lib/index.js'
import { FakeRingEngine } from './fake-ring.js'
import type { Param, Row } from './surface-walk.js'

const page = 4096

const never = () => false
const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null

const whole = (good: number, min = 0, max = Number.MAX_SAFE_INTEGER): Param => ({
  good,
  takes: (value) =>
    typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max,
})
const only = (good: unknown): Param => ({ good, takes: never })
/** Of an interface: what has its methods is as good. */
const anybodys = (good: object): Param => ({
  good,
  takes: (value) =>
    ['allocate', 'openChannel', 'copyFrom'].some(
      (name) => typeof (value as Record<string, unknown>)[name] === 'function',
    ),
})
const optional = ({ good, takes }: Param): Param => ({
  good,
  takes: (value) => value === undefined || takes(value),
})
const options = (good: object = {}): Param => optional({ good, takes: isObject })
const text = (good: string): Param => ({ good, takes: (value) => typeof value === 'string' })
const fn = (good: () => unknown): Param => ({ good, takes: (value) => typeof value === 'function' })

const copiers = optional({ good: [], takes: (value) => Array.isArray(value) && value.length === 0 })

export async function world() {
  const engine = new index.SoftwareEngine()
  // What the heart asks of an engine is asked of one without it: nobody seals its attachments.
  const bare = new index.SoftwareEngine()
  const importer = engine.importer()
  const buffer = await index.MovableBuffer.create(2 * page, index.memfd())
  const attachment = await importer.attach(buffer)
  const channel = importer.channel()
  const batching = importer.channel()
  // The software engine does not send: a device that does.
  const rings = new index.Importer(new FakeRingEngine())
  const frame = await rings.attach(buffer)
  const memfd = index.Memfd.create(2 * page)
  const mapping = memfd.map()
  const dmaBuf = index.DmaBuf.fromHandle(memfd.dup().handle)
  const syncFile = index.SyncFile.fromHandle(memfd.dup().handle)
  const log = new index.KernelLog(memfd.dup().handle)
  const make = (type: unknown, ...args: unknown[]) =>
    new (type as new (...args: unknown[]) => index.OwnedFd)(...args)
  // What these are asked of a memfd the kernel refuses.
  const dmaHeap = make(index.DmaHeap, memfd.dup().handle, 'system') as index.DmaHeap
  const drm = make(index.DrmDevice, memfd.dup().handle, 'vgem', new Map()) as index.DrmDevice
  return {
    engine,
    bare,
    importer,
    buffer,
    attachment,
    channel,
    batching,
    rings,
    frame,
    memfd,
    mapping,
    dmaBuf,
    syncFile,
    log,
    dmaHeap,
    drm,
  }
}

export type World = Awaited<ReturnType<typeof world>>

export async function closeWorld(w: World): Promise<void> {
  await w.rings.close()
  await w.engine.close()
  await w.bare.close()
  await w.buffer.close()
  w.mapping.unmap()
  for (const each of [w.memfd, w.dmaBuf, w.syncFile, w.log, w.dmaHeap, w.drm]) each.close()
}

const build =
  (type: unknown) =>
  (...args: never[]) =>
    new (type as new (...args: never[]) => unknown)(...args)

/** What of the verbs classes needs no device; nothing where their addon is not built. */
function verbsRows(): Record<string, Row> {
  const types = { SendBatch: index.SendBatch, ReceiveBatch: index.ReceiveBatch }
  const all = { ...types, WorkCompletions: index.WorkCompletions }
  return Object.fromEntries(
    Object.entries(all).map(([name, type]) => [
      name,
      { call: build(type), params: [whole(4, 1, 1 << 20)] },
    ]),
  )
}

/** Where this machine has none, a good size is a typed error, too. */
function allocators(exporters: Record<string, index.MappedExporter>): Record<string, Row> {
  return Object.fromEntries(
    Object.entries(exporters).map(([name, exporter]) => [
      `${name}Exporter#allocate`,
      { call: exporter.allocate.bind(exporter), params: [whole(page, 1)] },
    ]),
  )
}

export function rows(w: World): Record<string, Row> {
  const { engine, bare, importer, buffer, attachment, channel, batching, rings, frame } = w
  const { memfd, mapping, dmaBuf, syncFile, log, dmaHeap, drm } = w
  const fence = index.Fence.of(Promise.resolve())
  const reservation = new index.Reservation()
  const context = index.reservationClass.acquire()
  const mutex = new index.WwMutex(index.reservationClass)
  // Not its own, perhaps: of several calls at once any may have the lock.
  const unlock = () => {
    if (mutex.locked) mutex.unlock(mutex.holder ?? undefined)
  }
  const batch = new index.Batch(4)
  const out = new index.Completions(4)
  const range = [only(attachment), whole(0, 0, 2 * page)]
  const copy = [...range, ...range, whole(0, 0, 2 * page), options()]
  const fill = [...range, whole(8, 0, 2 * page), whole(1, 0, 255), options()]
  const add = [only(attachment), whole(0, 0, 0), whole(1), options()]
  const message = [only(frame), whole(0, 0, 2 * page), whole(64, 0, 2 * page), options()]
  const tx = rings.channel({ queue: 'tx' })
  const rx = rings.channel({ queue: 'rx' })
  const exporter = index.memfd()
  const family = { interfaceVersion: 1, name: 'bad-input', spelling: 'bad-input' }
  const residency = { budget: page, evictTo: index.udmabuf() }
  const resident = new index.ResidentSet(exporter, residency)
  const complaints = new index.KernelComplaints()
  const time = optional({ good: 1, takes: (value) => typeof value === 'number' })
  const mode = only('r')
  const none: Param = { good: [], takes: (v) => Array.isArray(v) && v.length === 0 }
  return {
    openEngine: { call: index.openEngine, params: [only('software'), options()] },
    evict: {
      call: index.evict,
      params: [{ good: [buffer], takes: Array.isArray }, anybodys(exporter), whole(0)],
    },
    ResidentSet: {
      call: build(index.ResidentSet),
      params: [anybodys(exporter), only(residency)],
    },
    'ResidentSet#create': {
      call: resident.create.bind(resident),
      params: [whole(page, 1, page), options()],
    },
    'ResidentSet#use': {
      call: resident.use.bind(resident),
      params: [only(buffer)],
      isVariadic: true,
    },
    lockAll: {
      call: index.lockAll,
      params: [
        only(context),
        { good: [], takes: (v) => isObject(v) && Symbol.iterator in v && !ArrayBuffer.isView(v) },
        options(),
      ],
    },
    registerEngine: {
      call: index.registerEngine,
      params: [only({ ...family, open: () => Promise.resolve(null) })],
    },
    registerExporter: {
      call: index.registerExporter,
      params: [only({ ...family, open: () => null })],
    },
    registerDriver: {
      call: index.registerDriver,
      params: [only({ ...family, ids: [1], open: () => Promise.reject(new Error('no device')) })],
    },
    exporterByName: { call: index.exporterByName, params: [only('memfd')] },
    memfd: { call: index.memfd, params: [options()] },
    udmabuf: { call: index.udmabuf, params: [options()] },
    heap: { call: index.heap, params: [optional(text('system'))] },
    drm: { call: index.drm, params: [optional(only({ driver: 'vgem' }))] },
    vfioBar: { call: index.vfioBar, params: [text('0000:00:10.0'), options()] },
    VfioBarExporter: {
      call: build(index.VfioBarExporter),
      params: [text('0000:00:10.0'), options()],
    },
    slab: { call: index.slab, params: [anybodys(exporter), options()] },
    Batch: { call: build(index.Batch), params: [whole(4, 1, 1 << 20)] },
    Completions: { call: build(index.Completions), params: [whole(4, 1, 1 << 20)] },
    ...verbsRows(),
    Importer: { call: build(index.Importer), params: [anybodys(engine), options()] },
    WwClass: { call: build(index.WwClass), params: [only('wait-die')] },
    WwMutex: { call: build(index.WwMutex), params: [only(index.reservationClass)] },
    AcquireContext: { call: build(index.AcquireContext), params: [only(index.reservationClass)] },
    Fence: { call: build(index.Fence), params: [only(Promise.resolve())] },
    MovableBuffer: {
      call: build(index.MovableBuffer),
      params: [whole(page), anybodys(buffer.backing), { good: false, takes: () => true }].map(
        (each, i) => (i === 0 ? { ...each, takes: () => true } : each),
      ),
    },
    Memfd: { call: build(index.Memfd), params: [only(memfd.handle)] },
    DmaBuf: { call: build(index.DmaBuf), params: [only(memfd.handle)] },
    SyncFile: { call: build(index.SyncFile), params: [only(memfd.handle)] },
    DmaHeap: { call: build(index.DmaHeap), params: [only(memfd.handle)] },
    DrmDevice: { call: build(index.DrmDevice), params: [only(memfd.handle)] },
    OwnedFd: { call: build(index.OwnedFd), params: [only(memfd.handle)] },
    Mapping: { call: build(index.Mapping), params: [only(mapping.handle)] },
    MemfdExporter: { call: build(index.MemfdExporter), params: [options()] },
    UdmabufExporter: { call: build(index.UdmabufExporter), params: [options()] },
    HeapExporter: { call: build(index.HeapExporter), params: [text('system')] },
    DrmExporter: { call: build(index.DrmExporter), params: [text('vgem')] },
    SlabExporter: { call: build(index.SlabExporter), params: [anybodys(exporter), options()] },
    'MovableBuffer.create': {
      call: index.MovableBuffer.create,
      params: [whole(page, 1, page), only(exporter), options()],
    },
    'MovableBuffer#move': { call: buffer.move.bind(buffer), params: [only(exporter), options()] },
    'MovableBuffer#pin': { call: buffer.pin.bind(buffer), params: [options()] },
    'MovableBuffer#beginCpuAccess': {
      call: buffer.beginCpuAccess.bind(buffer),
      params: [optional(mode), options()],
    },
    'MovableBuffer#withCpuAccess': {
      call: buffer.withCpuAccess.bind(buffer),
      params: [optional(mode), fn(() => 1), options()],
    },
    'Importer#channel': { call: importer.channel.bind(importer), params: [options()] },
    'Importer#copy': { call: importer.copy.bind(importer), params: copy },
    'Importer#fill': { call: importer.fill.bind(importer), params: fill },
    'Importer#fetchAdd': { call: importer.fetchAdd.bind(importer), params: add },
    'Importer#send': { call: rings.send.bind(rings), params: message },
    'Importer#receive': { call: rings.receive.bind(rings), params: message, mayWait: true },
    'Importer#attachmentById': {
      call: importer.attachmentById.bind(importer),
      params: [whole(attachment.id)],
      isLookup: true,
    },
    'Importer#attach': { call: importer.attach.bind(importer), params: [only(buffer), options()] },
    'Channel#copy': { call: channel.copy.bind(channel), params: copy },
    'Channel#fill': { call: channel.fill.bind(channel), params: fill },
    'Channel#fetchAdd': { call: channel.fetchAdd.bind(channel), params: add },
    'Channel#send': { call: tx.send.bind(tx), params: message },
    'Channel#receive': { call: rx.receive.bind(rx), params: message, mayWait: true },
    'Channel#grant': { call: channel.grant.bind(channel), params: [only(attachment)] },
    'Channel#post': {
      call: batching.post.bind(batching),
      params: [only(batch), whole(0, 0, 4), whole(4, 0, 4)],
    },
    'Channel#reap': { call: batching.reap.bind(batching), params: [only(out)] },
    'Channel#ready': {
      call: batching.ready.bind(batching),
      params: [only(batch), whole(0, 0, 3), options()],
    },
    'Channel#completions': { call: batching.completions.bind(batching), params: [options()] },
    'Fence.of': { call: index.Fence.of, params: [only(Promise.resolve())] },
    'Fence#wait': { call: fence.wait.bind(fence), params: [options()] },
    'Reservation#addFence': {
      call: reservation.addFence.bind(reservation),
      params: [only(fence), whole(0, 0, 3)],
    },
    'Reservation#fences': { call: reservation.fences.bind(reservation), params: [whole(0, 0, 3)] },
    'Reservation#isIdle': { call: reservation.isIdle.bind(reservation), params: [whole(0, 0, 3)] },
    'Reservation#wait': {
      call: reservation.wait.bind(reservation),
      params: [whole(0, 0, 3), { good: {}, takes: () => true }],
    },
    'Reservation#waitSettled': {
      call: reservation.waitSettled.bind(reservation),
      params: [whole(0, 0, 3), { good: {}, takes: () => true }],
    },
    'WwMutex#tryLock': {
      call: mutex.tryLock.bind(mutex),
      params: [optional(only(context))],
      undo: unlock,
    },
    'WwMutex#lock': {
      call: mutex.lock.bind(mutex),
      params: [optional(only(context)), options()],
      undo: unlock,
    },
    'WwMutex#lockSlow': {
      call: mutex.lockSlow.bind(mutex),
      params: [only(context), options()],
      undo: unlock,
    },
    'WwMutex#unlock': { call: mutex.unlock.bind(mutex), params: [optional(only(context))] },
    'SoftwareEngine#importer': { call: engine.importer.bind(engine), params: [options()] },
    'SoftwareEngine#openChannel': {
      call: bare.openChannel.bind(bare),
      params: [only({ depth: 1, onCompletion: () => 1 })],
    },
    'SoftwareEngine#capabilities.canMap': {
      call: (backing: index.Backing) => bare.capabilities.canMap?.(backing, index.Access.READ),
      params: [only(buffer.backing)],
    },
    poisonByCopy: { call: index.poisonByCopy, params: [only(buffer.backing), copiers] },
    countStrayWritesByCopy: {
      call: index.countStrayWritesByCopy,
      params: [only(buffer.backing), copiers],
    },
    'SoftwareEngine#map': {
      call: bare.map.bind(bare),
      params: [
        whole(9, 0, 2 ** 32 - 1),
        only(buffer.backing),
        whole(8, 0, 2 * page),
        whole(3, 1, 3),
      ],
    },
    'SoftwareEngine#seal': { call: bare.seal.bind(bare), params: [whole(9)] },
    'SoftwareEngine#unseal': { call: bare.unseal.bind(bare), params: [whole(9)] },
    'SoftwareEngine#unmap': { call: bare.unmap.bind(bare), params: [whole(9)] },
    'SoftwareEngine#isMapped': { call: bare.isMapped.bind(bare), params: [whole(9)] },
    'SoftwareEngine#inject': { call: bare.inject.bind(bare), params: [only({ kind: 'lost' })] },
    KernelLog: { call: build(index.KernelLog), params: [only(memfd.handle)] },
    'KernelLog#readable': { call: log.readable.bind(log), params: [options()] },
    parseDmarFault: { call: index.parseDmarFault, params: [text('line')] },
    complaintIn: { call: index.complaintIn, params: [text('line')] },
    'KernelComplaints.in': { call: index.KernelComplaints.in, params: [text('log')] },
    'KernelComplaints#add': { call: complaints.add.bind(complaints), params: [text('line'), time] },
    parseBdf: { call: index.parseBdf, params: [only('00:00.0')] },
    pciDevice: { call: index.pciDevice, params: [only('00:00.0')] },
    bindToVfio: { call: index.bindToVfio, params: [none] },
    unbindFromVfio: { call: index.unbindFromVfio, params: [none] },
    'Memfd.create': { call: index.Memfd.create, params: [whole(page, 0, page), options()] },
    'Memfd.adopt': { call: index.Memfd.adopt, params: [whole(-1, 0)] },
    'Memfd#truncate': { call: memfd.truncate.bind(memfd), params: [whole(4 * page, page)] },
    'Memfd#addSeals': { call: memfd.addSeals.bind(memfd), params: [whole(0, 0, 0x3f)] },
    'Memfd#map': { call: memfd.map.bind(memfd), params: [options()] },
    'Mapping.map': { call: index.Mapping.map, params: [only(memfd.fd), options()] },
    'Mapping#view': {
      call: mapping.view.bind(mapping),
      params: [optional(whole(0, 0, page)), optional(whole(8, 0, page))],
    },
    'Mapping#copyNow': {
      call: mapping.copyNow.bind(mapping),
      params: [only(mapping), whole(0, 0, page), whole(page, 0, page), whole(8, 0, page)],
    },
    'Mapping#copyFrom': {
      call: mapping.copyFrom.bind(mapping),
      params: [only(mapping), whole(0, 0, page), whole(page, 0, page), whole(8, 0, page)],
    },
    'Mapping#populate': {
      call: mapping.populate.bind(mapping),
      params: [optional(whole(0, 0, page)), optional(whole(page, 0, page))],
    },
    'Mapping#storeChanges': {
      call: mapping.storeChanges.bind(mapping),
      params: [whole(0, 0, page), only(mapping), only(mapping), whole(8, 0, page)],
    },
    'Mapping#fill': {
      call: mapping.fill.bind(mapping),
      params: [
        { good: 1n, takes: (v) => v === 5n },
        optional(whole(0, 0, page)),
        optional(whole(8, 0, page)),
      ],
    },
    'Mapping#countRuns': {
      call: mapping.countRuns.bind(mapping),
      params: [
        { good: 1n, takes: (v) => v === 5n },
        optional(whole(0, 0, page)),
        optional(whole(8, 0, page)),
      ],
    },
    'DmaBuf.ofDuplicate': { call: index.DmaBuf.ofDuplicate, params: [only(-1)] },
    'DmaBuf.adopt': { call: index.DmaBuf.adopt, params: [only(-1)] },
    'DmaBuf#equals': { call: dmaBuf.equals.bind(dmaBuf), params: [only(dmaBuf)] },
    'DmaBuf#setName': { call: dmaBuf.setName.bind(dmaBuf), params: [text('name')] },
    'DmaBuf#map': { call: dmaBuf.map.bind(dmaBuf), params: [options()] },
    'DmaBuf#beginCpuAccess': {
      call: dmaBuf.beginCpuAccess.bind(dmaBuf),
      params: [mode, options()],
    },
    'DmaBuf#endCpuAccess': { call: dmaBuf.endCpuAccess.bind(dmaBuf), params: [mode] },
    'DmaBuf#withCpuAccess': {
      call: dmaBuf.withCpuAccess.bind(dmaBuf),
      params: [mode, fn(() => 1), options()],
    },
    'DmaBuf#exportSyncFile': { call: dmaBuf.exportSyncFile.bind(dmaBuf), params: [mode] },
    'DmaBuf#importSyncFile': {
      call: dmaBuf.importSyncFile.bind(dmaBuf),
      params: [mode, only(syncFile)],
    },
    'DmaBuf#readable': { call: dmaBuf.readable.bind(dmaBuf), params: [options()] },
    'DmaBuf#writable': { call: dmaBuf.writable.bind(dmaBuf), params: [options()] },
    'SyncFile.adopt': { call: index.SyncFile.adopt, params: [only(-1)] },
    'SyncFile#wait': { call: syncFile.wait.bind(syncFile), params: [options()] },
    'SyncFile#merge': {
      call: syncFile.merge.bind(syncFile),
      params: [only(syncFile), optional(text('name'))],
    },
    'SyncFile#setDeadline': {
      call: syncFile.setDeadline.bind(syncFile),
      params: [{ good: 1n, takes: (v) => v === 5n }],
    },
    VfioDevice: {
      call: build(index.VfioDevice),
      params: [{ good: '0000:00:00.0', takes: () => true }, only(null)],
    },
    'VfioDevice.open': {
      call: index.VfioDevice.open,
      params: [only('ffff:ff:1f.7'), options()],
    },
    'DmaHeap.open': { call: index.DmaHeap.open, params: [only('nowhere')] },
    'DrmDevice.open': { call: index.DrmDevice.open, params: [only({ driver: 'none' })] },
    'Udmabuf.create': { call: index.Udmabuf.create, params: [only(memfd), whole(0), whole(page)] },
    'Udmabuf.createList': {
      call: index.Udmabuf.createList,
      params: [only([{ memfd, offset: 0, size: page }])],
    },
    'DmaHeap#alloc': { call: dmaHeap.alloc.bind(dmaHeap), params: [whole(page, 1)] },
    'DrmDevice#createBuffer': { call: drm.createBuffer.bind(drm), params: [whole(page, 1)] },
    'DrmDevice#importBuffer': { call: drm.importBuffer.bind(drm), params: [only(dmaBuf)] },
    'DrmDevice#signalFence': {
      call: drm.signalFence.bind(drm),
      params: [whole(1, 0, 2 ** 32 - 1)],
    },
    ...allocators({
      Udmabuf: index.udmabuf(),
      Heap: index.heap(),
      Drm: index.drm(),
      Slab: index.slab(exporter),
      VfioBar: index.vfioBar('ffff:ff:1f.7'),
    }),
    'Channel#completionsSync': {
      call: batching.completionsSync.bind(batching),
      params: [whole(1, 0, 10_000), options()],
    },
    'MemfdExporter#allocate': {
      call: exporter.allocate.bind(exporter),
      params: [whole(page, 1, page)],
    },
  }
}
