/** The files of the guests' consoles. */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Those of guests that have ended, beside the new one. */
const KEPT = 9

const NAME = /^\d{8}T\d{6}-(\d+)\.log$/

/** A file for one more console. The newest are kept, and those whose guests are running. */
export function newLog(folder: string): string {
  const ended = readdirSync(folder).filter(hasEnded).sort()
  for (const old of ended.slice(0, -KEPT)) rmSync(join(folder, old), { force: true })
  const stamp = new Date().toISOString().replace(/[-:]|\..*/g, '')
  const path = join(folder, `${stamp}-${process.pid}.log`)
  writeFileSync(path, '')
  return path
}

/** Whoever has one open judges the guest by it at the end. */
function hasEnded(name: string): boolean {
  const pid = NAME.exec(name)?.[1]
  return pid !== undefined && !existsSync(`/proc/${pid}`)
}
