/**
 * Every callable of lib/index.ts with every kind of bad value in every place:
 * a typed error that names the argument or the system call, and nothing leaks.
 * An export or method without a row in the table fails.
 */
import t from 'tap'
import { P2pdmaError } from '../../lib/errors.js'
import * as index from '../../lib/index.js'
import { back, usage } from '../lifecycle/support.js'
import { closeWorld, rows, world } from './bad-input-table.js'
import { accepts, badValues, show, type Row } from './surface-walk.js'

const bad = badValues()

/** Options with one field that is wrong; each is refused by name. */
const badOptions: [string, Record<string, unknown>][] = [
  ['Importer', { stopTimeoutMs: -1, minRunMs: NaN, mapRetries: 0.5, mapRetryMs: Infinity }],
  ['Importer', { fenceTimeoutMs: '1', lockAll: 1, starvationLimit: -1 }],
  ['Importer#channel', { depth: 3, queueLimit: 0, queue: 5 }],
  ['Importer#attach', { access: 0, signal: {} }],
  ['Importer#copy', { signal: 5 }],
  ['VfioDevice.open', { space: 'vfio' }],
  ['Channel#fill', { signal: 'x' }],
  ['Channel#send', { signal: 5 }],
  ['Channel#receive', { signal: 'x' }],
  ['Channel#completions', { signal: 'x' }],
  ['MovableBuffer.create', { poison: 1, signal: null }],
  ['MovableBuffer#move', { signal: 1, context: {}, copyTimeoutMs: NaN, cpuTimeoutMs: -1 }],
  ['Fence#wait', { signal: 1, timeoutMs: NaN }],
  ['WwMutex#lock', { signal: 1 }],
  ['lockAll', { signal: 1 }],
  ['Memfd.create', { name: 5, seals: 64, sealable: 1, hugetlb: 4097 }],
  ['Mapping.map', { offset: 1, length: 0, write: 1, populate: 'yes' }],
  ['slab', { slabSize: 1 }],
  ['vfioBar', { region: 6 }],
  ['ResidentSet', { budget: 0 }],
  ['DmaBuf#readable', { signal: 1, timeoutMs: -1 }],
]

/** Takes nothing, or belongs to the package: no bad input is possible. */
const exempt = [
  'P2pdmaError',
  'PostError',
  'randomPsn',
  'wcStatusName',
  'asyncEventName',
  'qpStateName',
  'Reservation',
  'SoftwareEngine',
  'availableExporters',
  'quarantined',
  'pciDevices',
  'Mapping#unmap',
  'VfioBarExporter#switchOff',
  'DmaBuf#info',
  'DmaHeap.list',
  'DrmDevice.drivers',
  'Fence.create',
  'SyncFile#info',
  'KernelComplaints',
  'KernelComplaints#take',
  'KernelLog.open',
  'KernelLog#read',
  'Udmabuf.limits',
  'Memfd#getSeals',
  'AcquireContext#done',
  'AcquireContext#fini',
  'WwClass#acquire',
  'Reservation#prune',
  'SoftwareEngine#stats',
  'SoftwareEngine#unstall',
  'MovableBuffer#hint',
  'MovableBuffer#revoke',
  'MovableBuffer#countStrayWrites',
  'OwnedFd#stat',
  'VfioBarExporter#capacity',
  'VfioBarExporter#available',
]

/** What only a device of the guest's can be asked: test/kernel/vfio.test.ts, verbs*.test.ts. */
const inTheGuest =
  /^VfioDevice#|^(Verbs(Device|Engine|Object)|ProtectionDomain|Memory(Region|Window)|AddressHandle|CompletionChannel|CompletionQueue|SharedReceiveQueue|QueuePair|ConnectionManager|Connection|Listener)\b|^verbsDevices$/

/** @internal in the sources; tests and other layers reach them. */
const internal =
  /^(DmaBuf|SyncFile)\.fromHandle$|^Mapping\.(ofHandle|ofRegion)$|^Importer\.is$|#(close|dup|waitFor|check|checkVgem|release|releaseHandle|checkUsable|checkOpen|publish|retire|inPlace|link|unlink|attachmentList|attachmentNamed|attachmentChanged|addUser|checkAttachment|checkRange|fail|forgetChannel|attachRemote|forgetRemote|remove|loseMemory|copyBetween|assertHeld|addMoveFence|waitForOthers|forget)$/

function callables(): string[] {
  const found: string[] = []
  for (const [name, value] of Object.entries(index) as [string, unknown][]) {
    if (typeof value === 'function') found.push(name)
    const holders: [string, unknown][] = [[`${name}.`, value]]
    if (typeof value === 'function') holders.push([`${name}#`, value.prototype])
    if (typeof value !== 'function' && name !== 'Udmabuf') continue
    for (const [prefix, holder] of holders) {
      for (const [key, { value: member }] of Object.entries(
        Object.getOwnPropertyDescriptors(holder ?? {}),
      )) {
        if (typeof member === 'function' && key !== 'constructor') found.push(prefix + key)
      }
    }
  }
  return found.filter((each) => !/[.]prototype$/.test(each))
}

/** Null where it is refused as it should be. */
async function complaint({ call }: Row, args: unknown[], argument?: string) {
  let result: unknown
  try {
    result = await (call as (...args: unknown[]) => unknown)(...args)
  } catch (error) {
    if (!(error instanceof P2pdmaError)) return `raw ${String(error)}`
    if (argument !== undefined && error.argument !== argument) return `names ${error.argument}`
    if (error.argument === undefined && error.syscall === undefined) return `bare ${String(error)}`
    return null
  }
  return `accepted: ${typeof result}`
}

void t.test('the table knows the whole surface', async (t) => {
  const table = rows(await world())
  const missing = callables().filter(
    (name) =>
      !(name in table) &&
      !exempt.includes(name) &&
      ![internal, inTheGuest].some((each) => each.test(name)),
  )
  t.same(missing, [])
})

void t.test('bad values in every place', async (t) => {
  const before = usage()
  const w = await world()
  for (const [name, row] of Object.entries(rows(w))) {
    const wrong: string[] = []
    for (const [place, param] of row.params.entries()) {
      for (const value of bad.filter((each) => !accepts(param, each))) {
        const args = row.params.map(({ good }) => good)
        args[place] = value
        const why = await complaint(row, args)
        if (why !== null) wrong.push(`${place}: ${show(value)}: ${why}`)
      }
    }
    t.same(wrong, [], name)
  }
  t.equal(w.importer.error, null)
  t.same(w.channel.stats.waiting + w.channel.stats.inFlight, 0, 'nothing was begun')
  t.equal(await w.buffer.withCpuAccess('r', (cpu) => cpu.view().every((b) => b === 0)), true)
  await closeWorld(w)
  const after = await back(before)
  t.ok(after.fds <= before.fds && after.mappings <= before.mappings, 'nothing leaks')
})

void t.test('bad options, field by field', async (t) => {
  const table = rows(await world())
  for (const [name, fields] of badOptions) {
    const row = table[name]
    if (row === undefined) throw new Error(`no row ${name}`)
    for (const [field, value] of Object.entries(fields)) {
      const args = row.params.map(({ good }) => good)
      args[args.length - 1] = { [field]: value }
      t.equal(await complaint(row, args, field), null, `${name} ${field}: ${show(value)}`)
    }
  }
})

void t.test('columns that are not what they seem', async (t) => {
  const w = await world()
  const post = (batch: index.Batch) =>
    complaint({ call: w.batching.post.bind(w.batching), params: [] }, [batch, 0, 1])
  const column = new Float64Array(new ArrayBuffer(8))
  const batch = new index.Batch(1)
  Object.defineProperty(column, 'buffer', { value: batch.op.buffer })
  const forged = (change: object): index.Batch => Object.assign(new index.Batch(1), batch, change)
  t.equal(await post(forged({ length: column })), null, 'over memory that can be detached')
  t.equal(await post(forged({ length: new Proxy(batch.length, {}) })), null, 'a proxy')
  t.equal(await post(forged({ capacity: 1 << 20 })), null, 'too short')
  t.equal(await post(forged({ op: batch.length })), null, 'of another type')
  t.equal(await post(forged({ capacity: -1 })), null)
  t.equal(await post(forged({ capacity: 0 })), null, 'no such row')
  await closeWorld(w)
})
