/** Ranges of a memory against a map of its pages. */
import t from 'tap'
import { RangeAllocator } from '../../lib/exporters/range-allocator.js'
import { Random } from '../../lib/smoke/random.js'

t.test('best fit, and neighbours become one', (t) => {
  const ranges = new RangeAllocator(10 * 8, 8)
  const starts = [1, 16, 8, 17, 24].map((size) => ranges.allocate(size))
  t.same(starts, [0, 8, 24, 32, 56])
  t.equal(ranges.left, 0)
  t.throws(() => ranges.allocate(1), { code: 'ENOSPC' })
  ranges.free(8)
  ranges.free(32)
  t.equal(ranges.left, 40)
  t.throws(() => ranges.allocate(40), { code: 'ENOSPC', message: /in pieces/ })
  t.equal(ranges.allocate(16), 8, 'the smallest piece that is large enough')
  t.equal(ranges.allocate(8), 32)
  for (const start of [56, 8, 0, 32, 24]) ranges.free(start)
  t.equal(ranges.allocate(80), 0, 'whole again')
  t.throws(() => ranges.free(8), { code: 'ERR_OUT_OF_RANGE' })
  for (const bad of [0, -1, 0.5, NaN]) {
    t.throws(() => ranges.allocate(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
  }
  t.end()
})

t.test('at random', (t) => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed)
    const pages = 64
    const ranges = new RangeAllocator(pages, 1)
    const owner = new Array<number>(pages).fill(0)
    const held = new Map<number, number>()
    let wrong = 0
    for (let i = 1; i < 400; i++) {
      if (random.below(2) === 0 && held.size > 0) {
        const start = [...held.keys()][random.below(held.size)] ?? 0
        owner.fill(0, start, start + (held.get(start) ?? 0))
        held.delete(start)
        ranges.free(start)
      } else {
        const length = 1 + random.below(12)
        const runs = owner.map((each) => (each === 0 ? ' ' : 'x')).join('')
        const fits = runs.includes(' '.repeat(length))
        try {
          const start = ranges.allocate(length)
          if (!fits || owner.slice(start, start + length).some((each) => each !== 0)) wrong++
          if (start + length > pages) wrong++
          owner.fill(i, start, start + length)
          held.set(start, length)
        } catch {
          if (fits) wrong++
        }
      }
      if (ranges.left !== owner.filter((each) => each === 0).length) wrong++
    }
    for (const start of held.keys()) ranges.free(start)
    if (ranges.allocate(pages) !== 0) wrong++
    t.equal(wrong, 0, `seed ${seed}`)
  }
  t.end()
})
