/**
 * QEMU's own count of DMA faults, beside the kernel's log, which is no counter:
 * `-trace vtd_dmar_fault -D FILE` writes a line for each access that it refuses. One
 * boot: faults that a test makes one by one, then the smoke test's witness.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { root } from '../kernel/list.js'
import { dmarFaults } from './dmar-trace.js'
import { environment, main } from './guest.js'

const NIC = '0000:00:12.0'
/** Where a frame begins in its slot, bytes, and from one slot to the next: lib/smoke/layout.ts. */
const START = 64 - 14
const SLOT = 2048
/** Of the witness: 8 by themselves, and a burst. */
const FRAMES = 8 + 1000
/** Of the test: a descriptor, which is four reads of four bytes, and a frame of 64 bytes. */
const READS = 4
const WRITES = 17

t.test('as many faults as accesses, and where', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-faults-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const trace = join(folder, 'trace')
  const script = `
    "$0" bundle/test/kernel/vfio-faults.test.js &&
    "$0" bundle/lib/cli/main.js smoke --engine vfio --witness --moves 2`
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      ...[main, 'rig', '--device', `-trace vtd_dmar_fault -D ${trace}`],
      ...['sh', '-c', script, process.execPath],
    ],
    { cwd: root, env: environment, encoding: 'utf8' },
  )
  t.equal(status, 0, stdout + stderr)
  const faults = dmarFaults(readFileSync(trace, 'utf8'))
  t.ok(faults.every(({ device }) => device === NIC))
  const first = faults.slice(0, READS + WRITES)
  const witness = faults.slice(READS + WRITES)

  const of = (write: boolean) => first.filter((each) => each.write === write)
  // The memory core splits what it refuses.
  const words = [0, 4, 8, 12].map((at) => 0x200000 + at)
  t.same(
    of(false).map(({ iova }) => iova),
    words,
  )
  // The Ethernet header's 14 bytes by themselves.
  const written = of(true).map(({ iova }) => iova)
  t.equal(written.length, WRITES)
  t.equal(written[0], 0x400000)
  t.ok(written.every((iova) => iova >= 0x400000 && iova < 0x400040))

  t.match(stdout, /8 faults at their addresses; a burst of 1000: 0 bytes changed/)
  t.ok(witness.every(({ write }) => write))
  t.equal(witness.filter(({ iova }) => iova % SLOT === START).length, FRAMES)
  t.equal(witness.length % FRAMES, 0, `${witness.length / FRAMES} accesses for each frame`)
})
