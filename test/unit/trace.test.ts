/** What the diagnostics channels tell of a move, so that its pause can be split. */
import t from 'tap'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import type { BufferMove, ChannelTransition, MappingChange } from '../../lib/move-notify/trace.js'
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
  const transitions: ChannelTransition[] = []
  const moves: BufferMove[] = []
  const mappings: MappingChange[] = []
  const listeners = [
    [trace.channel, (message: unknown) => void transitions.push(message as ChannelTransition)],
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
  const at = (event: string) => transitions.find((each) => each.event === event)?.at ?? NaN
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
