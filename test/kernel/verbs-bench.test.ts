/** That the benchmark `verbs` runs and has all its figures; what they are is no matter here. */
import t from 'tap'
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const main = fileURLToPath(new URL('../bench/main.js', import.meta.url))

/** Under emulation, and with others on the machine. */
const PATIENCE_MS = 900_000
const options = { timeout: PATIENCE_MS }

t.setTimeout(PATIENCE_MS)

interface Output {
  results: { name: string; median: number; sides: number[]; parameters: Record<string, unknown> }[]
}

t.test('every figure, with its control and both sides’ parameters', options, async (t) => {
  const args = [main, '--suite', 'verbs', '--quick', '--json', '-']
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: PATIENCE_MS })
  const { results } = JSON.parse(stdout) as Output
  t.strictSame(
    results.map(({ name }) => name),
    [
      'write_bw_64k_vs_perftest',
      'control_write_bw_64k_vs_perftest',
      'msg_rate_64b_batch32_vs_perftest',
      'control_msg_rate_64b_batch32_vs_perftest',
      'send_lat_event_vs_perftest',
      'control_send_lat_event_vs_perftest',
      'send_lat_event_loop_vs_perftest',
      'control_send_lat_event_loop_vs_perftest',
      'send_lat_poll_vs_perftest',
      'control_send_lat_poll_vs_perftest',
      'move_1000_regions_vs_naive',
      'bystander_bw_vs_control',
    ],
  )
  for (const { name, median, sides, parameters } of results) {
    t.ok(median > 0 && sides.every((side) => side > 0), name)
    t.match(parameters, { mtu: 1024, pairs: 1 }, name)
  }
})
