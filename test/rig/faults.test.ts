/**
 * QEMU's own count of DMA faults, beside the kernel's log, which is no counter:
 * `-trace vtd_dmar_fault -D FILE` writes a line for each access that it refuses.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { dist, root } from '../kernel/list.js'
import { dmarFaults } from './dmar-trace.js'

const NIC = '0000:00:12.0'

t.setTimeout(900_000)

t.test('as many faults as accesses, and where', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-faults-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const trace = join(folder, 'trace')
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      ...[join(dist, 'lib/cli/main.js'), 'rig', '--device', `-trace vtd_dmar_fault -D ${trace}`],
      ...[process.execPath, join(dist, 'test/kernel/vfio-faults.test.js')],
    ],
    { cwd: root, encoding: 'utf8' },
  )
  t.equal(status, 0, stderr)
  const faults = dmarFaults(readFileSync(trace, 'utf8'))
  const of = (write: boolean) => faults.filter((each) => each.write === write)
  // The memory core splits what it refuses: a descriptor is four reads of four bytes.
  const words = [0, 4, 8, 12].map((at) => 0x200000 + at)
  t.same(
    of(false).map(({ iova }) => iova),
    words,
  )
  // A frame of 64 bytes: its Ethernet header's 14 by themselves.
  const written = of(true).map(({ iova }) => iova)
  t.equal(written.length, 17)
  t.equal(written[0], 0x400000)
  t.ok(written.every((iova) => iova >= 0x400000 && iova < 0x400040))
  t.ok(faults.every(({ device }) => device === NIC))
})
