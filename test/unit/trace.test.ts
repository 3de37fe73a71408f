/** What the diagnostics channels tell of a move, so that its pause can be split. */
import t from 'tap'
import { attachmentTransitions } from '../../lib/move-notify/importer/attachment-states.js'
import { transitions } from '../../lib/move-notify/importer/channel-states.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { follow } from '../../lib/move-notify/importer/state-table.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import type {
  AttachmentRestore,
  BufferMove,
  ChannelTransition,
  MappingChange,
} from '../../lib/move-notify/trace.js'
import { trace } from '../../lib/move-notify/trace.js'
import { FakeEngine, FakeExporter } from './fake-memory.js'

const PAGE = 4096

void t.test('a pause is split into stop, unmap, copy, map, restart', async (t) => {
  const engine = new FakeEngine()
  const importer = new Importer(engine, { minRunMs: 0 })
  const buffer = await MovableBuffer.create(PAGE, new FakeExporter('a'))
  const attachment = await importer.attach(buffer)
  const channel = importer.channel()
  channel.grant(attachment)
  const steps: ChannelTransition[] = []
  const moves: BufferMove[] = []
  const mappings: MappingChange[] = []
  const listeners = [
    [trace.channel, (message: unknown) => void steps.push(message as ChannelTransition)],
    [trace.move, (message: unknown) => void moves.push(message as BufferMove)],
    [trace.mapping, (message: unknown) => void mappings.push(message as MappingChange)],
  ] as const
  for (const [topic, listener] of listeners) topic.subscribe(listener)
  t.teardown(() => {
    for (const [topic, listener] of listeners) topic.unsubscribe(listener)
  })
  await buffer.move(new FakeExporter('b'))
  while (!channel.isRunning) await new Promise((resolve) => setImmediate(resolve))

  t.strictSame(
    mappings.map(({ importer, attachment, change, error }) => [
      importer,
      attachment,
      change,
      error,
    ]),
    [
      [importer.name, attachment.id, 'unmap', null],
      [importer.name, attachment.id, 'map', null],
    ],
  )
  const at = (event: string) => steps.find((each) => each.event === event)?.at ?? NaN
  const [unmap, map] = mappings as [MappingChange, MappingChange]
  const [move] = moves as [BufferMove]
  const called = move.at - move.endMs
  const order = [
    called,
    at('invalidate'),
    at('drained'),
    unmap.at - unmap.ms,
    unmap.at,
    called + move.invalidatedMs,
    called + move.copiedMs,
    move.at,
  ]
  // Each is a clock's reading less another's: a rounding error apart, and no more.
  const late = order.findIndex((time, i) => i > 0 && !(time >= order[i - 1]! - 1e-6))
  t.equal(late, -1, `in order: ${order.join(' ')}`)
  t.ok(map.at - map.ms >= unmap.at && map.at <= at('restart'), 'mapped, then restarted')
  await importer.close()
  await buffer.close()
})

void t.test('a channel that must run on for a while is asked to stop', async (t) => {
  const importer = new Importer(new FakeEngine(), { minRunMs: 1000 })
  const buffer = await MovableBuffer.create(PAGE, new FakeExporter('a'))
  const attachment = await importer.attach(buffer)
  const channel = importer.channel()
  channel.grant(attachment)
  const seen: string[] = []
  const listener = (message: unknown) => {
    const { from, event, to } = message as ChannelTransition
    t.equal(transitions[from][event], to, 'as the table has it')
    seen.push(`${from} ${event}: ${to}, ${channel.state}`)
  }
  trace.channel.subscribe(listener)
  t.teardown(() => void trace.channel.unsubscribe(listener))
  for (const place of ['b', 'c']) {
    await buffer.move(new FakeExporter(place))
    while (!channel.isRunning) await new Promise((resolve) => setImmediate(resolve))
  }
  const stop = [
    'stopping drained: stopped, stopped',
    'stopped restore: restoring, restoring',
    'restoring restart: running, running',
  ]
  t.strictSame(seen, [
    'running invalidate: stopping, stopping',
    ...stop,
    'running ask: asked, running',
    'asked invalidate: stopping, stopping',
    ...stop,
  ])
  await importer.close()
  await buffer.close()
})

void t.test('an attachment that nobody uses is restored by itself, and says so', async (t) => {
  const importer = new Importer(new FakeEngine(), { minRunMs: 0 })
  const buffer = await MovableBuffer.create(PAGE, new FakeExporter('a'))
  const restored: string[] = []
  const listener = (message: unknown) => {
    const { generation, idle } = message as AttachmentRestore
    restored.push(`${generation} ${idle ? 'idle' : 'used'}`)
  }
  trace.restore.subscribe(listener)
  t.teardown(() => void trace.restore.unsubscribe(listener))
  const attachment = await importer.attach(buffer)
  const channel = importer.channel()
  for (const place of ['b', 'c']) {
    await buffer.move(new FakeExporter(place))
    while (attachment.state !== 'mapped') await new Promise((resolve) => setImmediate(resolve))
    channel.grant(attachment)
  }
  t.strictSame(restored, ['1 idle', '2 idle', '3 used'])
  await importer.close()
  await buffer.close()
})

void t.test('the tables of states and events', async (t) => {
  const tables: Record<string, Record<string, string>>[] = [transitions, attachmentTransitions]
  for (const table of tables) {
    for (const [state, row] of Object.entries(table)) {
      const unknown = Object.values(row).filter((to) => !(to in table))
      t.strictSame(unknown, [], `what follows ${state} is a state`)
    }
  }
  const illegal = { code: 'ERR_ILLEGAL_TRANSITION' }
  t.throws(() => follow('channel', transitions, 'asked', 'restart'), illegal)
  t.throws(() => follow('channel', transitions, 'closed', 'ask'), illegal)
  t.throws(() => follow('attachment', attachmentTransitions, 'revoked', 'validate'), illegal)
  t.throws(() => follow('attachment', attachmentTransitions, 'closed', 'invalidate'), illegal)
})

void t.test('an engine that cannot map or unmap, at once or later', async (t) => {
  const engine = new FakeEngine()
  const importer = new Importer(engine, { minRunMs: 0, mapRetries: 1, mapRetryMs: 0 })
  const buffer = await MovableBuffer.create(PAGE, new FakeExporter('a'))
  await importer.attach(buffer)
  const errors: (string | undefined)[] = []
  const listener = (message: unknown) => {
    const { change, error } = message as MappingChange
    errors.push(`${change} ${error?.message}`)
  }
  trace.mapping.subscribe(listener)
  t.teardown(() => void trace.mapping.unsubscribe(listener))
  const { map } = engine
  let calls = 0
  engine.map = (...args) => {
    if (calls++ === 0) throw new Error('at once')
    if (calls === 2) return Promise.reject(new Error('later'))
    return map.apply(engine, args)
  }
  await buffer.move(new FakeExporter('b'))
  while (errors.length < 3) await new Promise((resolve) => setImmediate(resolve))
  t.strictSame(errors.slice(0, 3), ['unmap undefined', 'map at once', 'map later'])
  await importer.close()
  await buffer.close()
})
