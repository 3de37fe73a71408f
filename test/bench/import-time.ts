/** How long the package takes to import, in a process of its own. */
import { spawnSync } from 'node:child_process'
import { result, type Result } from './measure.js'

const program = `
const start = performance.now()
await import(${JSON.stringify(new URL('../../lib/index.js', import.meta.url).href)})
console.log(performance.now() - start)
`

export function importTime(quick: boolean): Result {
  const samples: number[] = []
  for (let i = 0; i < (quick ? 3 : 15); i++) {
    const args = ['--input-type=module', '--eval', program]
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`import failed: ${stderr}`)
    samples.push(Number(stdout))
  }
  return result('import_ms', 'ms', samples)
}
