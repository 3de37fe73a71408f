/** What a PCI device is used for now: reasons not to take it from its driver. */
import { holdersOfFiles } from '../holders.js'
import type { PciSystem } from './system.js'

export interface Use {
  /** `eth0 is up` */
  what: string
  /** How to end it. */
  hint: string
}

const IFF_UP = 1

export function usesOf(system: PciSystem, address: string): Use[] {
  return [
    ...display(system, address),
    ...functions(system, address),
    ...interfaces(system, address),
    ...disks(system, address),
  ]
}

/**
 * Processes that have a device file of it open: a display server, a program that does RDMA or
 * computes on it. Needs root to see those of others.
 */
export async function usersOf(system: PciSystem, address: string): Promise<Use[]> {
  const folder = system.resolve(system.device(address))
  const files = system.list('/sys/dev/char').flatMap((number) => {
    const path = `/sys/dev/char/${number}`
    if (system.resolve(path)?.startsWith(`${folder}/`) !== true) return []
    const name = /^DEVNAME=(.+)$/m.exec(system.read(`${path}/uevent`) ?? '')?.[1]
    return name === undefined ? [] : [`/dev/${name}`]
  })
  if (files.length === 0) return []
  const holders = await holdersOfFiles(system, (target) => files.includes(target))
  return holders.map(({ pid, program }) => ({
    what: `process ${pid} (${program}) has it open`,
    hint: 'end it first',
  }))
}

function display(system: PciSystem, address: string): Use[] {
  const isBoot = ['boot_vga', 'boot_display'].some(
    (name) => system.read(system.device(address, name)) === '1',
  )
  const hint = 'let the machine boot with another display, or none'
  return isBoot ? [{ what: "it is the boot's display", hint }] : []
}

/** Its virtual functions would go with its driver. */
function functions(system: PciSystem, address: string): Use[] {
  const path = system.device(address, 'sriov_numvfs')
  const count = Number(system.read(path) ?? 0)
  if (count === 0) return []
  return [
    { what: `it has ${count} virtual functions`, hint: `\`echo 0 > ${path}\` takes them away` },
  ]
}

function interfaces(system: PciSystem, address: string): Use[] {
  return below(system, address, 'net').flatMap((name) => {
    const flags = Number(system.read(`/sys/class/net/${name}/flags`) ?? 0)
    const master = system.linkName(`/sys/class/net/${name}/master`)
    if (master !== null) {
      return [{ what: `${name} is part of ${master}`, hint: `\`ip link set ${name} nomaster\`` }]
    }
    if ((flags & IFF_UP) === 0) return []
    return [{ what: `${name} is up`, hint: `\`ip link set ${name} down\`` }]
  })
}

function disks(system: PciSystem, address: string): Use[] {
  const names = below(system, address, 'block').flatMap((name) => {
    // One path of several: what is mounted is the head that they share (drivers/nvme/host/multipath.c).
    const head = name.replace(/^(nvme\d+)c\d+(n\d+)$/, '$1$2')
    if (head === name) return [name]
    return [head, ...system.list(`/sys/block/${head}`).filter((part) => part.startsWith(head))]
  })
  return [...new Set(names)].flatMap((name) => disk(system, name))
}

function disk(system: PciSystem, name: string): Use[] {
  const uses: Use[] = []
  for (const place of mountsOf(system, name)) {
    uses.push({ what: `${name} is mounted on ${place}`, hint: `\`umount ${place}\`` })
  }
  const swaps = (system.read('/proc/swaps') ?? '').split('\n')
  if (swaps.some((line) => line.split(/\s/)[0] === `/dev/${name}`)) {
    uses.push({ what: `${name} is swap`, hint: `\`swapoff /dev/${name}\`` })
  }
  for (const holder of system.list(`/sys/class/block/${name}/holders`)) {
    uses.push({ what: `${name} is held by ${holder}`, hint: `take ${holder} down first` })
  }
  if (uses.length === 0 && system.isClaimed(name)) {
    uses.push({ what: `${name} is claimed by somebody`, hint: `see \`fuser -v /dev/${name}\`` })
  }
  return uses
}

/** Where it is mounted, as this process and the first one see it. */
function mountsOf(system: PciSystem, name: string): string[] {
  const number = system.read(`/sys/class/block/${name}/dev`)
  const places = new Set<string>()
  for (const path of ['/proc/self/mountinfo', '/proc/1/mountinfo']) {
    for (const line of (system.read(path) ?? '').split('\n')) {
      const [left = '', right = ''] = line.split(' - ')
      const [, , device, , place = ''] = left.split(' ')
      // A btrfs has a number of its own: there the source tells.
      if (device === number || right.split(' ')[1] === `/dev/${name}`) places.add(unescape(place))
    }
  }
  return [...places]
}

/** proc writes blanks and the like as `\040`. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, code: string) => String.fromCharCode(parseInt(code, 8)))
}

/** The members of a class whose devices lie below this one. */
function below(system: PciSystem, address: string, kind: 'net' | 'block'): string[] {
  const folder = system.resolve(system.device(address))
  return system
    .list(`/sys/class/${kind}`)
    .filter((name) => system.resolve(`/sys/class/${kind}/${name}`)?.startsWith(`${folder}/`))
}
