/** Addresses for DMA: whatever is taken and given back, in whatever order. */
import fc from 'fast-check'
import t from 'tap'
import { IovaAllocator } from '../../lib/kernel/vfio/iova-allocator.js'

const PAGE = 4096
const LARGE = 2 << 20

/** As the rig's: the range of interrupts lies between; the last page is odd. */
const ranges = [
  { start: 0, end: 8 * LARGE - 1 },
  { start: 9 * LARGE, end: 16 * LARGE + 100 },
]

const capacity = () => {
  const allocator = new IovaAllocator(ranges, PAGE)
  let pages = 0
  for (;;) {
    try {
      allocator.allocate(1)
    } catch {
      return pages
    }
    pages++
  }
}

t.test('what is taken lies in a range, apart from the rest, and comes back whole', (t) => {
  const step = fc.oneof(
    fc.record({ take: fc.integer({ min: 1, max: 3 * LARGE }) }),
    fc.record({ take: fc.integer({ min: 1, max: 5 * PAGE }) }),
    fc.record({ give: fc.nat() }),
  )
  const property = fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const allocator = new IovaAllocator(ranges, PAGE)
    const taken: { iova: number; size: number }[] = []
    for (const each of steps) {
      if ('give' in each) {
        const [one] = taken.splice(each.give % Math.max(taken.length, 1), 1)
        if (one !== undefined) allocator.free(one.iova)
        continue
      }
      const size = each.take
      let iova
      try {
        iova = allocator.allocate(size)
      } catch (error) {
        if ((error as { code?: string }).code === 'ENOSPC') continue
        throw error
      }
      allocator.check(iova, size)
      if (iova === 0) throw new Error('address 0 was given')
      if (iova % (size >= LARGE ? LARGE : PAGE) !== 0) throw new Error('not aligned')
      for (const other of taken) {
        // A page between them faults.
        if (iova < other.iova + other.size + PAGE && other.iova < iova + size + PAGE) {
          throw new Error('too near to another')
        }
      }
      taken.push({ iova, size })
    }
    for (const { iova } of taken) allocator.free(iova)
    // Both ranges are one piece again: from the first large page of each to its end.
    const whole = [7 * LARGE - PAGE, 7 * LARGE - PAGE].map((size) => allocator.allocate(size))
    if (whole.join() !== `${LARGE},${9 * LARGE}`) throw new Error(`in pieces: ${whole.join()}`)
  })
  fc.assert(property, { numRuns: 300 })
  t.end()
})

t.test('after any history there is as much as at first', (t) => {
  const all = capacity()
  t.equal(all, Math.floor((8 * LARGE - PAGE) / (2 * PAGE)) + (7 * LARGE) / (2 * PAGE))
  const allocator = new IovaAllocator(ranges, PAGE)
  const first = Array.from({ length: 50 }, (_, i) => allocator.allocate((i % 7) * PAGE + 1))
  const even = first.filter((_, i) => i % 2 === 0)
  const odd = first.filter((_, i) => i % 2 === 1).reverse()
  for (const iova of [...even, ...odd]) allocator.free(iova)
  let pages = 0
  t.throws(
    () => {
      for (; ; pages++) allocator.allocate(1)
    },
    { code: 'ENOSPC' },
  )
  t.equal(pages, all)
  t.end()
})

t.test('bad requests', (t) => {
  const allocator = new IovaAllocator(ranges, PAGE)
  for (const size of [0, -1, 0.5, NaN, 2 ** 53]) {
    t.throws(() => allocator.allocate(size), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
  }
  t.throws(() => allocator.allocate('4096' as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => allocator.allocate(9 * LARGE), { code: 'ENOSPC' })
  const iova = allocator.allocate(PAGE)
  allocator.free(iova)
  t.throws(() => allocator.free(iova), { code: 'ERR_OUT_OF_RANGE', argument: 'iova' }, 'twice')
  t.throws(() => allocator.check(8 * LARGE - PAGE, 2 * PAGE), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => allocator.check(20 * LARGE, PAGE), /0x0-0xffffff, 0x1200000-0x2000064/)
  t.throws(() => new IovaAllocator([], PAGE).allocate(1), { code: 'ENOSPC' })
  t.end()
})
