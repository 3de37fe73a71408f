/** How long the package takes to import, in a process of its own. */
import { spawnSync } from 'node:child_process'
import { result, type Result } from './measure.js'

/** Milliseconds. */
export function importOnce(url: string): number {
  const program = `
const start = performance.now()
await import(${JSON.stringify(url)})
console.log(performance.now() - start)
`
  const args = ['--input-type=module', '--eval', program]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`import failed: ${stderr}`)
  return Number(stdout)
}

export function importTime(quick: boolean): Result {
  const { href } = new URL('../../lib/index.js', import.meta.url)
  const samples = Array.from({ length: quick ? 3 : 15 }, () => importOnce(href))
  return result('import_ms', 'ms', samples)
}
