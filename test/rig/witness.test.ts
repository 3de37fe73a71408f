/**
 * The witness scenario, counted by QEMU: as many frames reached for a revoked
 * mapping as were sent there, and nothing else did.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { dist, root } from '../kernel/list.js'
import { dmarFaults } from './dmar-trace.js'

const RECEIVER = '0000:00:12.0'
/** Where a frame begins in its slot, bytes, and from one slot to the next: lib/smoke/layout.ts. */
const START = 64 - 14
const SLOT = 2048
/** 8 by themselves, and a burst. */
const FRAMES = 8 + 1000

t.setTimeout(900_000)

t.test('each frame to a revoked mapping is refused, access by access', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-witness-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const trace = join(folder, 'trace')
  const main = join(dist, 'lib/cli/main.js')
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      ...[main, 'rig', '--device', `-trace vtd_dmar_fault -D ${trace}`],
      ...[process.execPath, main, 'smoke', '--engine', 'vfio', '--witness', '--moves', '2'],
    ],
    { cwd: root, encoding: 'utf8' },
  )
  t.equal(status, 0, stdout + stderr)
  t.match(stdout, /8 faults at their addresses; a burst of 1000: 0 bytes changed/)
  const faults = dmarFaults(readFileSync(trace, 'utf8'))
  t.ok(faults.every(({ device, write }) => device === RECEIVER && write))
  // The memory core splits what it refuses into accesses of four bytes: many a frame.
  t.equal(faults.filter(({ iova }) => iova % SLOT === START).length, FRAMES)
  t.equal(faults.length % FRAMES, 0, `${faults.length / FRAMES} accesses for each frame`)
})
