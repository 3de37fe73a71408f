/**
 * Pages of another size than this machine's: arm64 hosts have 64 KiB. The fake of one
 * (fake-large-pages.cc) tells that size and refuses what is no multiple of it; the rest is real.
 */
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { native } from '../../lib/native.js'
import { pageSize, pageSizeIn } from '../../lib/page-size.js'
import { sizeLimits } from '../../lib/smoke/options.js'
import { usableRanges } from '../../lib/kernel/vfio/dma-space.js'
import { compile } from './native-help.js'

t.setTimeout(600_000)

const here = dirname(fileURLToPath(import.meta.url))
const PAGE = 65536

t.test('where it is read', (t) => {
  t.equal(pageSize, native.pageSize)
  const auxv = (order: 'LE' | 'BE', ...words: number[]) => {
    const buffer = Buffer.alloc(8 * words.length)
    words.forEach((word, i) => {
      if (order === 'LE') buffer.writeBigUInt64LE(BigInt(word), 8 * i)
      else buffer.writeBigUInt64BE(BigInt(word), 8 * i)
    })
    return buffer
  }
  for (const order of ['LE', 'BE'] as const) {
    t.equal(pageSizeIn(auxv(order, 33, 6, 6, 16384, 0, 0), order), 16384)
    t.equal(pageSizeIn(auxv(order, 33, 6, 0, 0), order), null)
    t.equal(pageSizeIn(auxv(order, 33, 6, 6), order), null)
  }
  t.end()
})

t.test('limits', (t) => {
  t.same(sizeLimits(4096), { min: 65536, max: 2 ** 40, multipleOf: 4096 })
  t.same(sizeLimits(65536), { min: 65536, max: 2 ** 40, multipleOf: 65536 })
  t.same(sizeLimits(1 << 18), { min: 1 << 18, max: 2 ** 40, multipleOf: 1 << 18 })
  for (const page of [4096, 65536]) {
    const [range] = usableRanges([0n, (1n << 64n) - 1n], page)
    t.equal(range?.end, 2 ** 53 - page)
  }
  t.end()
})

t.test('a machine of 64 KiB pages', (t) => {
  const flags = ['-shared', '-fPIC', '-Wall', '-Wextra', '-Werror']
  const fake = compile('fake-large-pages.so', [...flags, 'test/native/fake-large-pages.cc', '-ldl'])
  const run = (...args: string[]) => {
    const env = { ...process.env, LD_PRELOAD: fake, FAKE_PAGE_SIZE: String(PAGE) }
    return spawnSync(process.execPath, args, { encoding: 'utf8', env })
  }
  const main = join(here, '../../lib/cli/main.js')

  const help = / --size BYTES .* a multiple of 65536, 65536 at least /
  t.match(run(main, 'smoke', '--help'), { status: 0, stdout: help })
  t.match(run(main, 'serve', '--help'), { status: 0, stdout: help })
  const size = /^p2pdma smoke: --size must be a multiple of 65536, not '69632'\nusage:/
  t.match(run(main, 'smoke', '--size', '69632'), { status: 2, stderr: size })
  const smoke = run(main, 'smoke', '--size', '1M', '--moves', '20', '--seed', '1')
  t.match(smoke, { status: 0, stdout: /^# \d+ bytes verified in 20 moves; 0 lost/m }, smoke.stderr)

  const program = `
    const P = await import(${JSON.stringify(join(here, '../../lib/index.js'))})
    const tell = async (call) => { try { return await call() } catch (error) { return error.message } }
    const memfd = P.Memfd.create(${3 * PAGE})
    const [exporter, evictTo] = [P.slab(P.memfd()), P.udmabuf()]
    const set = new P.ResidentSet(P.memfd(), { budget: ${4 * PAGE}, evictTo })
    await set.create(1)
    console.log(JSON.stringify({
      rounded: P.Memfd.create(1).size,
      slot: (await exporter.allocate(1)).size,
      resident: set.stats.residentBytes,
      unaligned: await tell(() => P.Mapping.map(memfd.fd, { offset: 4096 })),
      aligned: await tell(() => P.Mapping.map(memfd.fd, { offset: ${PAGE} }).length),
      part: await tell(() => memfd.map().populate(4096, 4096)),
      slab: await tell(() => P.slab(P.memfd(), { slabSize: 4096 })),
    }))`
  const { stdout, stderr } = run('--input-type=module', '-e', program)
  t.match(
    JSON.parse(stdout || '{}') as object,
    {
      rounded: PAGE,
      slot: PAGE,
      resident: PAGE,
      unaligned: 'offset must be a multiple of the page size, 65536, not 4096',
      aligned: 2 * PAGE,
      part: 'offset must be a multiple of 65536, not 4096',
      slab: /^slabSize must be a whole number from 65536 to /,
    },
    stderr,
  )
  // What these ask of the real kernel they ask in pages.
  const classes = run(join(here, 'kernel-classes.test.js'))
  t.equal(classes.status, 0, classes.stdout.slice(-1000))
  t.end()
})
