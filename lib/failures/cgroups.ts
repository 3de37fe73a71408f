/** What the cgroups of this process, and those above them, have left of a resource. */
import { join } from 'node:path'
import type { Machine } from './machine.js'

type Controller = 'hugetlb' | 'memory' | 'pids' | 'rdma'

/** A limit that is reached. */
export interface Full {
  /** The file that has the limit, and may be written to. */
  file: string
  /** What of: `hca_object of rxe0`; empty where the file is of one thing. */
  what: string
  limit: number
  used: number
}

/** /proc/self/mountinfo: where a hierarchy is mounted, and which part of it (Documentation/filesystems/proc.rst). */
interface Mount {
  root: string
  point: string
}

function mountOf(machine: Machine, isIt: (type: string, options: string) => boolean): Mount | null {
  for (const line of (machine.read('proc/self/mountinfo') ?? '').split('\n')) {
    const [before = '', after = ''] = line.split(' - ')
    const [, , , root = '', point = ''] = before.split(' ')
    const [type = '', , options = ''] = after.split(' ')
    if (isIt(type, options)) return { root, point }
  }
  return null
}

/** The folders of this process in a controller's hierarchy, its own first. */
function folders(machine: Machine, controller: Controller): string[] {
  const found: string[] = []
  for (const line of (machine.read('proc/self/cgroup') ?? '').split('\n')) {
    const [, number, names = '', path = ''] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? []
    if (number === undefined) continue
    const isUnified = number === '0' && names === ''
    if (!isUnified && !names.split(',').includes(controller)) continue
    const mount = mountOf(machine, (type, options) =>
      isUnified ? type === 'cgroup2' : type === 'cgroup' && options.split(',').includes(controller),
    )
    if (mount === null) continue
    // A container sees its own part alone, under the path that the host knows it by.
    const below = path.startsWith(mount.root) ? path.slice(mount.root.length) : path
    const parts = below.split('/').filter((part) => part !== '' && part !== '..')
    for (let depth = parts.length; depth >= 0; depth--) {
      found.push(join(mount.point, ...parts.slice(0, depth)))
    }
  }
  return found
}

const count = (text: string | null) =>
  text === null || !/^\d+\s*$/.test(text) ? null : Number(text)

/** The first limit of `pairs` (limit, use) that is reached. */
function firstFull(
  machine: Machine,
  controller: Controller,
  pairs: readonly (readonly [limit: string, used: string])[],
  isFull: (used: number, limit: number) => boolean,
): Full | null {
  for (const folder of folders(machine, controller)) {
    for (const [limitName, usedName] of pairs) {
      const file = join(folder, limitName)
      const limit = count(machine.read(file))
      const used = count(machine.read(join(folder, usedName)))
      if (limit === null || used === null || !isFull(used, limit)) continue
      return { file, what: '', limit, used }
    }
  }
  return null
}

/** mm/memcontrol.c; what has been freed since counts as used, up to a 32nd of the limit. */
export function fullMemory(machine: Machine, bytes = 0): Full | null {
  const pairs = [
    ['memory.max', 'memory.current'],
    ['memory.limit_in_bytes', 'memory.usage_in_bytes'],
  ] as const
  const isFull = (used: number, limit: number) => used + bytes >= limit - limit / 32
  return firstFull(machine, 'memory', pairs, isFull)
}

/** mm/hugetlb_cgroup.c: pages that are in use, and those that a mapping has reserved. */
export function fullHugePages(machine: Machine, size: number, bytes: number): Full | null {
  const mega = size / 2 ** 20
  const name = mega >= 1024 ? `${mega / 1024}GB` : mega >= 1 ? `${mega}MB` : `${mega * 1024}KB`
  const pairs = (['rsvd.', ''] as const).flatMap((kind) => [
    [`hugetlb.${name}.${kind}max`, `hugetlb.${name}.${kind}current`] as const,
    [`hugetlb.${name}.${kind}limit_in_bytes`, `hugetlb.${name}.${kind}usage_in_bytes`] as const,
  ])
  return firstFull(machine, 'hugetlb', pairs, (used, limit) => used + bytes > limit)
}

/** kernel/cgroup/pids.c: threads count, too. */
export function fullPids(machine: Machine): Full | null {
  return firstFull(machine, 'pids', [['pids.max', 'pids.current']], (used, limit) => used >= limit)
}

/** kernel/cgroup/rdma.c: `rxe0 hca_handle=2 hca_object=max`; null where none of `resources` is. */
export function fullRdma(machine: Machine, resources: RegExp): Full | null {
  for (const folder of folders(machine, 'rdma')) {
    const file = join(folder, 'rdma.max')
    const used = rdmaCounts(machine.read(join(folder, 'rdma.current')))
    for (const [what, limit] of rdmaCounts(machine.read(file))) {
      if (!resources.test(what)) continue
      const now = used.get(what) ?? 0
      if (now >= limit) return { file, what, limit, used: now }
    }
  }
  return null
}

function rdmaCounts(text: string | null): Map<string, number> {
  const counts = new Map<string, number>()
  for (const line of (text ?? '').split('\n')) {
    const [device = '', ...fields] = line.trim().split(/\s+/)
    for (const field of fields) {
      const [, name, value] = /^(\w+)=(\d+)$/.exec(field) ?? []
      if (name !== undefined) counts.set(`${name} of ${device}`, Number(value))
    }
  }
  return counts
}
