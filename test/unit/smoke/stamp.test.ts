import t from 'tap'
import { Memfd } from '../../../lib/kernel/memfd.js'
import type { Mapping } from '../../../lib/kernel/mapping.js'
import { native } from '../../../lib/native.js'
import { Verdict } from '../../../lib/abi.js'

const LINE = 64
const LENGTH = 16 * LINE
const SEED = 5n
/** Two blocks with a guard line around each. */
const OFFSETS = Float64Array.of(LINE, LENGTH + 4 * LINE)

function memory(): { mapping: Mapping; bytes: Uint8Array; close: () => void } {
  const memfd = Memfd.create(4 * LENGTH)
  const mapping = memfd.map()
  const close = () => {
    mapping.unmap()
    memfd.close()
  }
  return { mapping, bytes: new Uint8Array(mapping.view()), close }
}

const stamp = (mapping: Mapping, sequences: number[]) =>
  native.stampBlocks(mapping.handle, OFFSETS, Float64Array.from(sequences), LENGTH, SEED)

async function verify(mapping: Mapping, sequences: number[], consume = false, seed = SEED) {
  const numbers = Float64Array.from(sequences)
  return [...(await native.verifyBlocks(mapping.handle, OFFSETS, numbers, LENGTH, seed, consume))]
}

void t.test('what was stamped is intact, and is consumed once', async (t) => {
  const { mapping, bytes, close } = memory()
  await verify(mapping, [0, 0], true)
  t.strictSame(await verify(mapping, [0, 0]), [Verdict.INTACT, Verdict.INTACT], 'markers')
  t.strictSame(await verify(mapping, [7, 8]), [Verdict.UNTOUCHED, Verdict.UNTOUCHED])
  await stamp(mapping, [7, 8])
  t.strictSame(await verify(mapping, [7, 8], true), [Verdict.INTACT, Verdict.INTACT])
  t.strictSame(await verify(mapping, [7, 8]), [Verdict.UNTOUCHED, Verdict.UNTOUCHED], 'consumed')
  t.strictSame(await verify(mapping, [0, 0]), [Verdict.INTACT, Verdict.INTACT])
  t.ok(bytes.subarray(LINE, 2 * LINE).every((byte) => byte === 0xc0))
  close()
})

void t.test('a header travels right before its block', async (t) => {
  const { mapping, bytes, close } = memory()
  const header = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
  const numbers = Float64Array.of(7, 8)
  const run = async (sequences: number[], consume = false) => {
    const numbers = Float64Array.from(sequences)
    const { handle } = mapping
    return [...(await native.verifyBlocks(handle, OFFSETS, numbers, LENGTH, SEED, consume, header))]
  }
  await run([0, 0], true)
  await native.stampBlocks(mapping.handle, OFFSETS, numbers, LENGTH, SEED, header)
  t.strictSame(bytes.slice(LINE - header.length, LINE), header)
  t.ok(
    bytes.subarray(0, LINE - header.length).every((byte) => byte === 0x9a),
    'the guard stays',
  )
  t.strictSame(await run([7, 8]), [Verdict.INTACT, Verdict.INTACT])
  bytes[LINE - 1] = 0
  t.strictSame(await run([7, 8]), [Verdict.GUARD_BEFORE, Verdict.INTACT], 'a header that changed')
  t.strictSame(await run([7, 8], true), [Verdict.GUARD_BEFORE, Verdict.INTACT])
  t.strictSame(await run([7, 8]), [Verdict.UNTOUCHED, Verdict.UNTOUCHED], 'consumed')
  t.ok(
    bytes.subarray(0, LINE).every((byte) => byte === 0x9a),
    'the guard is whole again',
  )
  bytes[LINE - 1] = 14
  t.strictSame(await run([0, 0]), [Verdict.GUARD_BEFORE, Verdict.INTACT], 'a header, and no block')
  close()
})

void t.test('another stamp, another seed, and a part of one are told apart', async (t) => {
  const { mapping, bytes, close } = memory()
  await verify(mapping, [0, 0], true)
  await stamp(mapping, [7, 8])
  t.strictSame(await verify(mapping, [8, 7]), [Verdict.FOREIGN, Verdict.FOREIGN])
  t.strictSame(await verify(mapping, [0, 0]), [Verdict.FOREIGN, Verdict.FOREIGN])
  t.strictSame(await verify(mapping, [7, 8], false, 6n), [Verdict.MIXED, Verdict.MIXED])
  bytes.fill(0xc0, LINE + LENGTH / 2, LINE + LENGTH)
  t.strictSame(await verify(mapping, [7, 8]), [Verdict.MIXED, Verdict.INTACT])
  close()
})

void t.test('one flipped bit anywhere is seen', async (t) => {
  const { mapping, bytes, close } = memory()
  await verify(mapping, [0, 0], true)
  await stamp(mapping, [7, 8])
  for (const at of [0, 8, 16, 24, 63, LENGTH - 1]) {
    bytes[LINE + at] = (bytes[LINE + at] ?? 0) ^ 1
    t.strictSame(await verify(mapping, [7, 8]), [Verdict.MIXED, Verdict.INTACT], `byte ${at}`)
    bytes[LINE + at] = (bytes[LINE + at] ?? 0) ^ 1
  }
  bytes[0] = 0
  bytes[2 * LINE + LENGTH - 1] = 0
  const guards = Verdict.GUARD_BEFORE | Verdict.GUARD_AFTER
  t.strictSame(await verify(mapping, [7, 8]), [guards, Verdict.INTACT])
  close()
})

void t.test('lines of a block differ, and blocks differ in every line', async (t) => {
  const { mapping, bytes, close } = memory()
  await stamp(mapping, [7, 8])
  const lines = new Set<string>()
  for (const offset of OFFSETS) {
    for (let at = 0; at < LENGTH; at += LINE) {
      lines.add(Buffer.from(bytes.subarray(offset + at, offset + at + LINE)).toString('hex'))
    }
  }
  t.equal(lines.size, (2 * LENGTH) / LINE)
  close()
})

void t.test('bad input is a typed error', async (t) => {
  const { mapping, close } = memory()
  const two = Float64Array.of(1, 2)
  const bad: [string, () => unknown, string][] = [
    ['no mapping', () => native.stampBlocks({} as never, OFFSETS, two, LENGTH, SEED), 'TYPE'],
    [
      'an array',
      () => native.stampBlocks(mapping.handle, [64] as never, two, LENGTH, SEED),
      'TYPE',
    ],
    ['unaligned', () => offsets(Float64Array.of(LINE + 8)), 'RANGE'],
    ['no room before', () => offsets(Float64Array.of(0)), 'RANGE'],
    ['no room after', () => offsets(Float64Array.of(3 * LENGTH)), 'RANGE'],
    ['negative', () => offsets(Float64Array.of(-LINE)), 'RANGE'],
    ['NaN', () => offsets(Float64Array.of(NaN)), 'RANGE'],
    ['beyond 2^53', () => offsets(Float64Array.of(2 ** 60)), 'RANGE'],
    ['too many', () => offsets(new Float64Array(4097).fill(LINE)), 'RANGE'],
    ['fewer sequences', () => stampWith(OFFSETS, Float64Array.of(1), LENGTH), 'RANGE'],
    ['a broken length', () => stampWith(OFFSETS, two, LENGTH + 8), 'RANGE'],
    ['no length', () => stampWith(OFFSETS, two, 0), 'RANGE'],
    ['a huge length', () => stampWith(OFFSETS, two, 2 ** 40), 'RANGE'],
    [
      'a header that is an array',
      () => native.stampBlocks(mapping.handle, OFFSETS, two, LENGTH, SEED, [1] as never),
      'TYPE',
    ],
    [
      'a header of more than a line',
      () => native.stampBlocks(mapping.handle, OFFSETS, two, LENGTH, SEED, new Uint8Array(65)),
      'RANGE',
    ],
    [
      'no bigint',
      () => native.stampBlocks(mapping.handle, OFFSETS, two, LENGTH, 1 as never),
      'TYPE',
    ],
  ]
  function stampWith(offsets: Float64Array, sequences: Float64Array, length: number) {
    return native.stampBlocks(mapping.handle, offsets, sequences, length, SEED)
  }
  function offsets(list: Float64Array) {
    return stampWith(list, new Float64Array(list.length), LENGTH)
  }
  for (const [name, call, code] of bad) {
    t.throws(call, { code: code === 'TYPE' ? 'ERR_INVALID_ARG_TYPE' : 'ERR_OUT_OF_RANGE' }, name)
  }
  close()
  t.throws(() => stampWith(OFFSETS, two, LENGTH), { code: 'ERR_CLOSED' }, 'unmapped')
  t.end()
})
