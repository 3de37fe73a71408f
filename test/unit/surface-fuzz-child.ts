/**
 * Random calls of the public surface with random values, many at a time, in a process of
 * its own: a crash is a signal there, and no end of the tests. Prints its seed first, and
 * at the end how many calls it made.
 *
 *   node surface-fuzz-child.js SEED RUNS
 */
import fc from 'fast-check'
import { closeWorld, rows, world } from './bad-input-table.js'
import { attempt, badValues, lookalikes } from './surface-walk.js'

const [seed = 1, numRuns = 100] = process.argv.slice(2).map(Number)
console.log(`seed ${seed}`)

/** What would take over a descriptor of ours, and is right to. */
const apart = /\.adopt$|^(MovableBuffer|Memfd|OwnedFd)$/

const known = (): undefined => undefined
const fail = (why: string) => {
  console.log(`seed ${seed}: ${why}`)
  process.exit(1)
}
process.on('uncaughtException', (error) => fail(`uncaught: ${error.stack}`))
process.on('unhandledRejection', (error) =>
  fail(`a rejection that nobody handles: ${String(error)}`),
)

const w = await world()
const all = Object.entries(rows(w)).filter(([name]) => !apart.test(name))
const wild = badValues()
const numbers = fc.oneof(
  fc.double(),
  fc.integer({ min: -1, max: 9000 }),
  fc.constantFrom(...[12, 16, 31, 32, 33, 52, 53, 63].flatMap((n) => [2 ** n - 1, 2 ** n])),
)

/** In a box: the generator itself looks at its values, and a revoked proxy does not like that. */
interface Box {
  value: unknown
}

const boxed = (values: unknown[]) => fc.constantFrom(...values.map((value): Box => ({ value })))
const box = (value: unknown): Box => ({ value })

function valueFor(good: unknown): fc.Arbitrary<Box> {
  const isOptions = typeof good === 'object' && good !== null && !Array.isArray(good)
  const options = fc.oneof(
    boxed(wild).map(({ value: signal }) => box({ ...(good as object), signal })),
    fc.object({ maxDepth: 1 }).map((more) => box({ ...(good as object), ...more })),
  )
  return fc.oneof(
    { weight: 4, arbitrary: boxed([good, good, good, ...lookalikes(good)]) },
    { weight: 2, arbitrary: boxed(wild) },
    { weight: 2, arbitrary: numbers.map(box) },
    { weight: 1, arbitrary: fc.bigInt().map(box) },
    ...(isOptions ? [{ weight: 1, arbitrary: options }] : []),
  )
}

const call = fc.constantFrom(...all).chain(([name, row]) =>
  fc
    .tuple(fc.tuple(...row.params.map(({ good }) => valueFor(good))), fc.nat({ max: 8 }))
    .map(([boxes, left]) => ({
      name,
      row,
      args: boxes.slice(0, left < boxes.length ? left : undefined).map(({ value }) => value),
      [fc.toStringMethod]: () => name,
    })),
)
let calls = 0
const property = fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 8 }), async (some) => {
  const done = await Promise.all(
    some.map(async ({ name, row, args }) => {
      calls++
      const why = await attempt(name, row, args, known, true)
      return why === null ? [] : [`${name}: ${why}`]
    }),
  )
  if (done.flat().length > 0) throw new Error(done.flat().join('\n'))
})
const outcome = await fc.check(property, { seed, numRuns, endOnFailure: true })
if (outcome.failed) {
  fail(`${fc.defaultReportMessage(outcome)}\n${String(outcome.errorInstance)}`)
}
await closeWorld(w)
console.log(`${calls} calls`)
process.exit(0)
