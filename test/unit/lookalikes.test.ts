/**
 * The whole public surface, without types: every method and accessor on receivers that are
 * none, every callable with its arguments left out, with objects that only look right, and
 * with each of its options wrong. Always a typed error, in one way (what returns a promise
 * rejects, what does not throws), with nothing begun and nothing kept.
 */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import * as index from '../../lib/index.js'
import { back, usage } from '../lifecycle/support.js'
import { closeWorld, rows, world, type World } from './bad-input-table.js'
import { declaredPromises } from './surface-types.js'
import { badValues, walkArguments, walkReceivers, type Known } from './surface-walk.js'

t.setTimeout(600_000)

const promising = declaredPromises()

/** All classes that are exported, and those that are only handed out. */
async function classes(w: World): Promise<Known[]> {
  const access = await w.buffer.beginCpuAccess('r')
  const instances = [
    ...Object.values(w),
    ...[access, w.buffer.backing, w.buffer.reservation, index.reservationClass],
    ...[index.reservationClass.acquire(), index.Fence.of(Promise.resolve())],
    ...[index.memfd(), index.udmabuf(), index.heap(), index.drm(), index.slab(index.memfd())],
    index.vfioBar('0000:00:10.0'),
    new index.ResidentSet(index.memfd(), { budget: 4096, evictTo: index.udmabuf() }),
  ]
  await access.end()
  const exported = Object.values(index as Record<string, unknown>).filter(
    (each) => typeof each === 'function' && typeof each.prototype === 'object',
  ) as Known['type'][]
  const types = new Set([...exported, ...instances.map((each) => each.constructor)])
  return [...types].map((type) => ({
    type,
    instance: instances.find((each) => each.constructor === type),
  }))
}

void t.test('what is declared is what there is', (t) => {
  t.equal(promising('MovableBuffer#move'), true)
  t.equal(promising('Channel#copy'), true)
  t.equal(promising('Memfd#truncate'), false)
  t.equal(promising('lockAll'), true)
  t.equal(promising('Importer#checkRange'), undefined, 'not public')
  t.end()
})

void t.test('every method and accessor, on what only looks like its receiver', async (t) => {
  const w = await world()
  const { wrong, calls } = await walkReceivers(await classes(w), promising)
  t.comment(`${calls} calls`)
  t.same(wrong, [])
  await closeWorld(w)
})

void t.test('arguments left out, lookalikes, and each option wrong', async (t) => {
  const before = usage()
  const w = await world()
  const { wrong, calls } = await walkArguments(rows(w), badValues(), promising)
  t.comment(`${calls} calls`)
  t.same(wrong, [])
  t.equal(w.importer.error, null)
  t.equal(w.importer.size, 1, 'no attachment is left')
  t.notOk(w.buffer.reservation.locked || w.buffer.isPinned || w.buffer.isHinted)
  t.equal(w.channel.stats.waiting + w.channel.stats.inFlight, 0)
  await closeWorld(w)
  const after = await back(before)
  t.ok(after.fds <= before.fds && after.mappings <= before.mappings, 'nothing leaks')
})

void t.test('random calls, in a process that may crash', async (t) => {
  const child = fileURLToPath(new URL('./surface-fuzz-child.js', import.meta.url))
  const seed = Number(process.env['SURFACE_SEED'] ?? Date.now() % 2 ** 31)
  const { stdout, code, signal } = await new Promise<{
    stdout: string
    code: number | null
    signal: string | null
  }>((resolve) => {
    const running = execFile(
      process.execPath,
      [child, String(seed), '400'],
      { timeout: 240_000, killSignal: 'SIGKILL' },
      (_, stdout) => resolve({ stdout, code: running.exitCode, signal: running.signalCode }),
    )
  })
  t.comment(`SURFACE_SEED=${seed}: ${stdout.trim().split('\n').at(-1)}`)
  t.equal(signal, null)
  t.equal(code, 0, stdout)
})
