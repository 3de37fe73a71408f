import t from 'tap'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import { Memfd } from '../../lib/kernel/memfd.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const openFds = () => readdirSync('/proc/self/fd').length
const mapsOf = (name: string) =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`memfd:${name}`)).length

const lib = (name: string) => fileURLToPath(new URL(`../../lib/${name}`, import.meta.url))

/** Everything that can be under way at once; `stage` says how far it gets. */
const work = (stage: number) => `
  const { Memfd } = await import(${JSON.stringify(lib('kernel/memfd.js'))})
  const { native } = await import(${JSON.stringify(lib('native.js'))})
  const { execFileSync } = await import('node:child_process')
  const { randomFill } = await import('node:crypto')
  const { mkdtempSync, rmSync } = await import('node:fs')
  globalThis.kept = []
  const memfd = Memfd.create(32 << 20, { name: 'lifecycle' })
  kept.push(memfd)
  if (${stage} > 0) kept.push(memfd.map(), memfd.map())
  if (${stage} > 1) kept.push(kept[1].view(), new Uint8Array(kept[2].view()))
  if (${stage} > 2) {
    for (let i = 0; i < 8; i++) kept[1].fill(5n).catch(() => {})
    kept[1].countRuns(0n).catch(() => {})
    kept[2].copyFrom(kept[1], 0, 0, 16 << 20).catch(() => {})
    randomFill(kept[4], () => {})
  }
  if (${stage} > 3) {
    const folder = mkdtempSync('/tmp/p2pdma-test-')
    execFileSync('mkfifo', [folder + '/fifo'])
    for (let i = 0; i < 4; i++) {
      const fd = native.openFd(folder + '/fifo', 2)
      kept.push(fd, native.pollFd(fd, 1, () => {}))
    }
    rmSync(folder, { recursive: true })
  }
  if (${stage} > 4) kept[1].unmap()
`

t.test('a worker terminated at each stage leaves nothing behind', async (t) => {
  const fds = openFds()
  for (let stage = 0; stage <= 5; stage++) {
    for (let i = 0; i < 3; i++) {
      const source = `(async () => {${work(stage)}
        const { parentPort } = await import('node:worker_threads')
        parentPort.postMessage('there')
        setInterval(() => {}, 1000)
      })()`
      const worker = new Worker(source, { eval: true })
      await once(worker, 'message')
      if (i === 1) await turn()
      await worker.terminate()
    }
  }
  t.equal(openFds(), fds, 'no descriptor left')
  t.equal(mapsOf('lifecycle'), 0, 'no mapping left')
})

t.test('a process that exits at each stage exits as it should', (t) => {
  for (let stage = 0; stage <= 5; stage++) {
    for (const end of [
      'process.exit(7)',
      'process.exitCode = 7; for (const k of kept) { if (typeof k === "function") k() }',
    ]) {
      const result = spawnSync(
        process.execPath,
        ['--input-type=module', '-e', `${work(stage)}\n${end}`],
        { encoding: 'utf8', timeout: 600_000 },
      )
      t.equal(result.status, 7, `stage ${stage}: ${end.slice(0, 20)} ${result.stderr}`)
    }
  }
  t.end()
})

t.test('what nobody closes, the garbage collector does', async (t) => {
  const fds = openFds()
  const before = mapsOf('garbage')
  const litter = (i: number) => {
    const memfd = Memfd.create(1 << 20, { name: 'garbage' })
    const mapping = memfd.map()
    mapping.view()
    if (i % 3 === 0) mapping.unmap()
    void mapping.fill(1n).catch(() => undefined)
  }
  for (let i = 0; i < 300; i++) litter(i)
  for (let i = 0; i < 100 && (openFds() > fds || mapsOf('garbage') > before); i++) {
    collect()
    await turn()
  }
  t.equal(openFds(), fds)
  t.equal(mapsOf('garbage'), before)
})

t.test('close in the middle of everything', async (t) => {
  const fds = openFds()
  for (let i = 0; i < 50; i++) {
    const memfd = Memfd.create(4 << 20, { name: 'middle' })
    const mapping = memfd.map()
    const jobs = [mapping.fill(1n), mapping.countRuns(0n), mapping.copyFrom(mapping, 0, 8, 4096)]
    memfd.close()
    if (i % 2 === 0) await turn()
    mapping.unmap()
    mapping.unmap()
    memfd.close()
    for (const result of await Promise.allSettled(jobs)) {
      if (result.status === 'rejected') t.match(result.reason, { code: 'ERR_CLOSED' })
    }
  }
  await turn()
  t.equal(openFds(), fds)
  t.equal(mapsOf('middle'), 0)
})
