/**
 * Copies on a device's memory, each way that this CPU has. The memory is a
 * memfd's that is mapped as if it were a device's, so that a second, ordinary
 * mapping shows what was written.
 */
import t from 'tap'
import { Mapping, Memfd } from '../../lib/kernel/index.js'
import { native } from '../../lib/native.js'
import { Random } from '../../lib/smoke/random.js'

const SIZE = 8192
const random = new Random(1)

/** One memory, mapped as a device's and as what it is. */
function memory() {
  const memfd = Memfd.create(SIZE)
  const device = Mapping.ofRegion(memfd.handle, 0, SIZE)
  const plain = memfd.map()
  memfd.close()
  return { device, plain, bytes: Buffer.from(plain.view()) }
}

const target = memory()
const source = memory()
const noise = Buffer.from(Array.from({ length: SIZE }, () => random.below(256)))
const inverse = Buffer.from(noise.map((byte) => byte ^ 0xff))

function check(way: number, to: Mapping, from: Mapping, toAt: number[], fromAt: number[]): number {
  const expected = Buffer.alloc(SIZE)
  target.bytes.fill(0)
  let wrong = 0
  let flip = false
  for (const at of toAt) {
    for (const begin of fromAt) {
      for (let length = 0; length <= 300; length++) {
        // Every byte of the target changes each time.
        flip = !flip
        const bytes = flip ? noise : inverse
        bytes.copy(source.bytes)
        bytes.copy(expected, at, begin, begin + length)
        native.copySliceNow(to.handle, at, from.handle, begin, length, way)
        if (target.bytes.compare(expected, 0, 512, 0, 512) !== 0) wrong++
      }
    }
  }
  return wrong
}

const all = Array.from({ length: 64 }, (_, i) => 64 + i)
const some = [128, 129, 130, 131, 132, 136, 144, 160, 191]

t.ok(native.wideCopies.includes('words'), native.wideCopies.join())
for (const [way, name] of native.wideCopies.entries()) {
  t.equal(check(way, target.device, source.plain, all, some), 0, `${name}: to a device`)
  t.equal(check(way, target.plain, source.device, some, all), 0, `${name}: from a device`)
  t.equal(check(way, target.device, source.device, all, some), 0, `${name}: between devices`)

  let wrong = 0
  const expected = Buffer.alloc(SIZE)
  for (let distance = -150; distance <= 150; distance++) {
    for (const length of [0, 1, 7, 8, 63, 64, 65, 128, 200, 1000]) {
      noise.copy(target.bytes)
      noise.copy(expected)
      expected.copyWithin(500 + distance, 500, 500 + length)
      const { handle } = target.device
      native.copySliceNow(handle, 500 + distance, handle, 500, length, way)
      if (!target.bytes.equals(expected)) wrong++
    }
  }
  t.equal(wrong, 0, `${name}: over itself`)
}

t.test('what a mapping of a device does', async (t) => {
  const { device, bytes } = target
  t.equal(device.isDevice, true)
  t.equal(target.plain.isDevice, false)
  t.throws(() => device.view(), { code: 'ERR_UNSUPPORTED' })
  t.throws(() => device.handle.view(0, 8), { code: 'ERR_UNSUPPORTED' })
  bytes.fill(1)
  await device.fill(0x0807060504030201n, 8, 4096 + 24)
  const expected = Buffer.alloc(SIZE, 1)
  for (let at = 8; at < 8 + 4096 + 24; at++) expected[at] = (at % 8) + 1
  t.ok(bytes.equals(expected), 'fill')
  t.equal(await device.countRuns(0x0807060504030201n, 8, 4096 + 24), 0)
  bytes[100] = bytes[4096] = bytes[4104] = bytes[4128 - 1] = 0xff
  t.equal(await device.countRuns(0x0807060504030201n, 8, 4096 + 24), 3, 'over the seams of blocks')
  await source.plain.copyFrom(device, 0, 0, SIZE)
  t.ok(source.bytes.equals(bytes), 'read')

  const before = memory()
  before.bytes.set(source.bytes)
  source.bytes.fill(9, 16, 17)
  bytes.fill(0xee)
  await device.storeChanges(8, source.plain, before.plain, 4096)
  t.equal(bytes[24], 9)
  t.equal(
    bytes.filter((byte) => byte !== 0xee).length,
    8,
    'the word that was changed, and no other',
  )
  await t.rejects(device.storeChanges(0, device, before.plain, 8), { code: 'ERR_UNSUPPORTED' })
})

t.test('stamps on a device', async (t) => {
  const { device, plain, bytes } = target
  bytes.fill(0)
  const [offsets, sequences] = [Float64Array.of(128, 1024), Float64Array.of(7, 8)]
  const verify = (mapping: Mapping, consume: boolean) =>
    native.verifyBlocks(mapping.handle, offsets, sequences, 256, 3n, consume)
  await native.stampBlocks(device.handle, offsets, sequences, 256, 3n)
  const written = Buffer.from(bytes)
  bytes.fill(0)
  await native.stampBlocks(plain.handle, offsets, sequences, 256, 3n)
  t.ok(bytes.equals(written), 'the same bytes')
  t.same([...(await verify(device, true))], [12, 12], 'intact, without guards')
  const consumed = await verify(plain, false)
  t.same(await verify(device, false), consumed, 'the same verdicts')
  t.same([...consumed], [1, 1], 'consumed: the marker, and whole guards')
})

t.test('few bytes are copied before the promise is returned', async (t) => {
  const long = Memfd.create(256 << 10)
  const mapping = long.map()
  const bytes = Buffer.from(mapping.view())
  bytes.fill(1, 0, 128 << 10)
  const done = mapping.copyFrom(mapping, 0, 128 << 10, 64 << 10)
  t.equal(bytes[128 << 10], 1)
  await done
  await mapping.copyFrom(mapping, 0, 128 << 10, (64 << 10) + 1)
  t.equal(bytes[(192 << 10) + 1], 0)
  t.equal(bytes[192 << 10], 1)
  mapping.unmap()
  await t.rejects(mapping.copyFrom(mapping, 0, 0, 1), { code: 'ERR_CLOSED' })
  const { handle } = target.plain
  const copy = (length: number, way: number) =>
    native.copySliceNow(handle, 0, handle, 0, length, way)
  t.throws(() => copy((64 << 10) + 1, 0), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => copy(1, native.wideCopies.length), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => copy(SIZE + 1, 0), { code: 'ERR_OUT_OF_RANGE' })
  long.close()
})
