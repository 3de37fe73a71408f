/** What the tests inside the guest share. */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import type { DmaBuf } from '../../lib/kernel/index.js'
import { native } from '../../lib/native.js'

export const page = native.pageSize

/** By what VFIO devices' memory is mapped in this boot: its test of test/rig says so, see list.ts. */
export const iommu = process.argv[2] === 'iommufd' ? 'iommufd' : 'type1'

export const openFds = () => readdirSync('/proc/self/fd').length

/** What each descriptor is of, for a test that finds one too many. */
export const listFds = () =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`]
    } catch {
      return []
    }
  })

/** Turns of the loop, so that handles that are closing have closed. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 5; i++) await turn()
}

/** The kernel's own list of dma-bufs: how many there are of one exporter (debugfs). */
export function countInDebugfs(exporter: string): number {
  const text = readFileSync('/sys/kernel/debug/dma_buf/bufinfo', 'utf8')
  return text.split('\n').filter((line) => line.split(/\s+/).includes(exporter)).length
}

/**
 * Reserves huge pages of the default size until the process ends; returns how
 * many bytes one has.
 */
export function reserveHugePages(count: number): number {
  const setting = '/proc/sys/vm/nr_hugepages'
  const before = readFileSync(setting, 'utf8')
  if (Number(before) < count) {
    writeFileSync(setting, `${count}`)
    process.once('exit', () => writeFileSync(setting, before))
  }
  const meminfo = readFileSync('/proc/meminfo', 'utf8')
  const total = Number(/^HugePages_Total:\s+(\d+)/m.exec(meminfo)?.[1])
  if (total < count) throw new Error(`only ${total} of ${count} huge pages`)
  return Number(/^Hugepagesize:\s+(\d+) kB/m.exec(meminfo)?.[1]) * 1024
}

/** The first byte of each page. */
export function firstBytes(dmaBuf: DmaBuf, step = page): Promise<number[]> {
  return dmaBuf.withCpuAccess('r', (view) => {
    const bytes: number[] = []
    for (let at = 0; at < view.length; at += step) bytes.push(view[at] ?? -1)
    return bytes
  })
}

/** Of all that `p2pdma smoke` printed, what went wrong. */
export function wrong(stderr: string): string {
  const isWrong = (line: string) => /^ *(not ok|Bail out)|^ *errors: (?!\[\])/.test(line)
  return stderr.split('\n').filter(isWrong).join('\n') || stderr
}

/** Pages that are pinned for DMA, in the whole machine: FOLL_PIN's counters (mm/gup.c). */
export function pinnedPages(): number {
  // What each CPU has counted and not yet added.
  readFileSync('/proc/sys/vm/stat_refresh')
  const text = readFileSync('/proc/vmstat', 'utf8')
  const count = (name: string) => Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1])
  return count('nr_foll_pin_acquired') - count('nr_foll_pin_released')
}
