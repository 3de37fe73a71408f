/** A register BAR that is taken for memory: what a look at it sees, and does. */
import t from 'tap'
import { isMemory, keepsBytes, type Looked } from '../../lib/exporters/bar-look.js'
import { Memfd } from '../../lib/kernel/memfd.js'

void t.test('memory keeps what is written, and has afterwards what it had', async (t) => {
  using memfd = Memfd.create(1 << 16)
  using mapping = memfd.map()
  const bytes = new Uint8Array(mapping.view())
  for (let i = 0; i < bytes.length; i++) bytes[i] = i * 7
  const before = Buffer.from(bytes)
  t.equal(await isMemory(mapping), true)
  t.ok(before.equals(bytes))
})

/** Fake: words that do what registers do, which no test may write to. */
function fakeRegisters(load: (offset: number, stored: bigint) => bigint) {
  const written: number[] = []
  const words = new Map<number, bigint>()
  const looked: Looked = {
    length: 1 << 17,
    fill: (pattern, offset) => {
      written.push(offset)
      words.set(offset, load(offset, pattern))
      return Promise.resolve()
    },
    countRuns: (pattern, offset) => Promise.resolve(words.get(offset) === pattern ? 0 : 1),
  }
  const restored: number[] = []
  const within = async (offset: number, change: () => Promise<boolean>) => {
    const kept = await change()
    restored.push(offset)
    return kept
  }
  return { written, restored, keeps: () => keepsBytes(looked, within) }
}

void t.test('registers do not, and as few of them as possible are touched', async (t) => {
  const end = (1 << 17) - 8
  const readOnly = fakeRegisters(() => 0n)
  t.equal(await readOnly.keeps(), false)
  t.same([readOnly.written, readOnly.restored], [[end], [end]])
  // Reserved bits read as ones; 32 bits wide; a word that keeps the one pattern by chance.
  for (const load of [
    (_: number, stored: bigint) => stored | 1n,
    (_: number, stored: bigint) => stored & 0xffff_ffffn,
    () => 0xa5c3_96f0_0f69_3c5an,
  ]) {
    t.equal(await fakeRegisters(load).keeps(), false)
  }
  // Some that keep theirs, and one that does not.
  const some = fakeRegisters((offset, stored) => (offset === 0 ? 0n : stored))
  t.equal(await some.keeps(), false)
  t.same(some.restored, [end, 1 << 16, 0])
  t.equal(await fakeRegisters((_, stored) => stored).keeps(), true)
})
