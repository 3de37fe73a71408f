/**
 * Run by patience.test.ts, which stops this process: one move whose drain takes 200 ms of 400.
 * Where a busy machine comes to the move when the 200 ms are over, it is tried again.
 */
import { writeSync } from 'node:fs'
import { memfd, MovableBuffer, openEngine } from '../../lib/index.js'
import { waitUntil } from '../../lib/move-notify/reservation/deadline.js'
import { trace } from '../../lib/move-notify/trace.js'

const engine = await openEngine('software')
const importer = engine.importer({ stopTimeoutMs: 400 })
const buffer = await MovableBuffer.create(1 << 20, memfd())
const attachment = await importer.attach(buffer)
let isTold = false
trace.channel.subscribe((message) => {
  if ((message as { to: string }).to !== 'stopping') return
  isTold = true
  writeSync(1, 'stopping\n')
})
for (let tries = 1; !isTold && tries <= 50; tries++) {
  engine.inject({ kind: 'stall', ms: 200 })
  const done = importer.fill(attachment, 0, buffer.size, 7)
  await waitUntil(() => engine.stats().injected === tries, 10_000)
  await buffer.move(memfd())
  await done
}
writeSync(1, `forced ${importer.stats.forcedStops}\n`)
await engine.close()
await buffer.close()
