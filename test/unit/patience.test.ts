/** A busy process is no proof that somebody else hangs: what a bound counts, and its last look. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { stat } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { memfd, MovableBuffer, openEngine } from '../../lib/index.js'
import { Patience, waitUntil, withDeadline } from '../../lib/move-notify/reservation/deadline.js'
import { trace } from '../../lib/move-notify/trace.js'

const late = () => new Error('late')

/** A turn of the event loop that takes so long. */
function busy(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

/** Comes by I/O: the answer is there long before the event loop sees it. */
function answer(): Promise<string> {
  return new Promise((resolve) => stat('/', () => resolve('answered')))
}

t.test('an answer that came while the process was busy is seen', async (t) => {
  for (const ms of [1, 100]) {
    const waited = withDeadline(answer(), ms, late)
    busy(500)
    t.equal(await waited, 'answered', `within ${ms} ms`)
  }
})

t.test('several long turns, each of which the work needs', async (t) => {
  const steps = async () => {
    for (let step = 0; step < 5; step++) {
      await answer()
      busy(300)
    }
    return answer()
  }
  t.equal(await withDeadline(steps(), 1000, late), 'answered')
})

t.test('a timer that is set late in a long turn has its time still', async (t) => {
  let isOver = false
  busy(200)
  const start = performance.now()
  using _patience = new Patience(100, () => (isOver = true))
  await answer()
  await sleep(1)
  t.ok(!isOver || performance.now() - start > 98, 'over only when 100 ms have passed')
})

t.test('what never comes is late, once, and not before its time', async (t) => {
  let calls = 0
  for (const ms of [0, 0.5, 1, 30, 250]) {
    const start = performance.now()
    const never = new Promise<void>(() => {})
    await t.rejects(
      withDeadline(never, ms, () => (calls++, late())),
      { message: 'late' },
    )
    t.ok(performance.now() - start > ms - 2, `${ms} ms`)
  }
  await sleep(20)
  t.equal(calls, 5)
})

t.test('what has settled leaves no timer', async (t) => {
  const timers = () => process.getActiveResourcesInfo().filter((each) => /Time|Immed/.test(each))
  const before = timers().length
  await withDeadline(Promise.resolve(), 1e12, late)
  await t.rejects(withDeadline(Promise.reject(new Error('mine')), 1e12, late), { message: 'mine' })
  t.equal(timers().length, before)
  t.equal(await withDeadline(answer(), Infinity, late), 'answered')
})

t.test('a loop that looks has the last look after its bound', async (t) => {
  let looks = 0
  let isThere = false
  const look = () => {
    looks++
    // The first turn is long, and meanwhile it has come.
    if (looks === 1) setImmediate(() => void (busy(100), (isThere = true)))
    return isThere
  }
  t.equal(await waitUntil(look, 20, 10), true)
  t.equal(looks, 2)
  t.equal(await waitUntil(() => false, 20, 1), false)
  t.equal(await waitUntil(() => true, 0), true)
})

t.test('a drain while the process is busy is not forced', async (t) => {
  await using engine = await openEngine('software')
  const importer = engine.importer({ stopTimeoutMs: 200 })
  const buffer = await MovableBuffer.create(1 << 20, memfd())
  const attachment = await importer.attach(buffer)
  const events: string[] = []
  const listen = (message: unknown) => {
    const { event, to } = message as { event: string; to: string }
    events.push(event)
    if (to === 'stopping') setImmediate(() => busy(2500))
  }
  trace.channel.subscribe(listen)
  t.teardown(() => trace.channel.unsubscribe(listen))
  engine.inject({ kind: 'stall', ms: 2000 })
  const done = importer.fill(attachment, 0, buffer.size, 7)
  t.ok(await waitUntil(() => engine.stats().injected === 1, 10_000))
  await buffer.move(memfd())
  await done
  t.strictSame(events, ['invalidate', 'drained', 'restore', 'restart'])
  await buffer.close()
})

t.test('SIGSTOP and SIGCONT in the middle of a drain force nothing', async (t) => {
  const script = fileURLToPath(new URL('patience-child.js', import.meta.url))
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line)
    if (line !== 'stopping') return
    child.kill('SIGSTOP')
    setTimeout(() => child.kill('SIGCONT'), 1500)
  })
  await once(child, 'close')
  t.strictSame(lines, ['stopping', 'forced 0'])
})
