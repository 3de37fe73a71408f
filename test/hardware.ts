/**
 * `npm run test:hardware`: what the rig's guest runs, on this machine's own
 * kernel and devices. What the machine lacks fails, with what would enable it.
 */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { availableExporters } from '../lib/exporters/index.js'
import { kernelTests, root } from './kernel/list.js'

for (const { placement, available, hint } of availableExporters()) {
  if (!available) process.stderr.write(`not here: ${placement}; ${hint ?? ''}\n`)
}
const { status } = spawnSync(
  process.execPath,
  [join(root, 'bundle/test/kernel/run.js'), ...kernelTests('hardware')],
  {
    cwd: root,
    env: { ...process.env, P2PDMA_HARDWARE: '1' },
    stdio: 'inherit',
  },
)
process.exitCode = status ?? 1
