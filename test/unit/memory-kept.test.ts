/** What is opened and closed keeps no memory: after a warm round, each kind is flat. */
import t from 'tap'
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

t.setTimeout(900_000)

const child = fileURLToPath(new URL('memory-kept-child.js', import.meta.url))

/** Bytes for each object that was closed: less than any of them, or its place in a list, takes. */
const MOST = { heap: 60, own: 300 }

t.test('opened and closed', (t) => {
  // One arena, so that what is free is used again.
  const env = { ...process.env, MALLOC_ARENA_MAX: '1' }
  const output = execFileSync(process.execPath, ['--expose-gc', child], { env }).toString()
  const found = JSON.parse(output) as Record<
    string,
    { count: number; heap: number[]; own: number[] }
  >
  for (const [name, { count, heap, own }] of Object.entries(found)) {
    // Between two rounds at least it has not grown: a collection may come late, a leak never goes.
    const least = (all: number[]) =>
      Math.min(...all.slice(2).map((each, i) => each - (all[i + 1] ?? 0))) / count
    t.ok(least(heap) < MOST.heap, `${name}: ${least(heap).toFixed()} bytes of V8's heap for each`)
    t.ok(least(own) < MOST.own, `${name}: ${least(own).toFixed()} bytes of the process for each`)
  }
  t.end()
})
