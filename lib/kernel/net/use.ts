/** What a network interface carries: reasons not to take it down. */
import { networkInterfaces } from 'node:os'
import { holdersOfFiles } from '../holders.js'
import { System } from '../system.js'

/** Connections named at most: a server has thousands. */
const NAMED = 3

/** include/net/tcp_states.h */
const TCP_ESTABLISHED = '01'

/** The addresses that an interface has. */
export type AddressesOf = (name: string) => readonly string[]

/**
 * What would be lost or cut off with its link, in words: `10.0.0.1`, `the default
 * route`, `a connection from 10.0.0.1:22 to 10.0.0.9:50022`. Not what the kernel itself has
 * put on every interface that is up (IPv6's link-local address and its routes).
 */
export function usesOfInterface(
  name: string,
  system = new System(),
  addressesOf: AddressesOf = addresses,
): string[] {
  const own = [...new Set([...addressesOf(name), ...addresses6(system, name)])]
  const told = own.filter((address) => !isLinkLocal(address))
  return [
    ...members(system, name),
    ...told,
    ...routes(system, name),
    ...routes6(system, name),
    ...connections(system, own),
  ]
}

/** Of an interface that is up: uv_interface_addresses() leaves out others. */
function addresses(name: string): string[] {
  return (networkInterfaces()[name] ?? []).map(({ address }) => address)
}

function isLinkLocal(address: string): boolean {
  return /^fe[89ab][\da-f]:/.test(address)
}

/** Those that stand on it, and what it is part of: net/core/dev.c, netdev_adjacent_sysfs_add(). */
function members(system: System, name: string): string[] {
  const folder = `/sys/class/net/${name}`
  const master = system.linkName(`${folder}/master`)
  const uppers = system
    .list(folder)
    .filter((entry) => entry.startsWith('upper_'))
    .map((entry) => entry.slice('upper_'.length))
    .filter((upper) => upper !== master)
  const functions = Number(system.read(`${folder}/device/sriov_numvfs`) ?? 0)
  return [
    ...(master === null ? [] : [`it is part of ${master}`]),
    ...uppers.map((upper) => `${upper} stands on it`),
    ...(functions > 0 ? [`it has ${functions} virtual functions`] : []),
  ]
}

/** The main table: net/ipv4/fib_trie.c, fib_route_seq_show(). */
function routes(system: System, name: string): string[] {
  const found: string[] = []
  for (const line of lines(system, '/proc/net/route')) {
    const [device, to = '', , , , , , mask = ''] = line.split(/\s+/)
    if (device !== name) continue
    const bits = [...(parseInt(mask, 16) >>> 0).toString(2)].filter((bit) => bit === '1').length
    found.push(bits === 0 ? 'the default route' : `the route to ${address4(to)}/${bits}`)
  }
  return [...new Set(found)]
}

/** All tables, those of addresses left out: net/ipv6/route.c, rt6_info_route(). */
function routes6(system: System, name: string): string[] {
  const found: string[] = []
  for (const line of lines(system, '/proc/net/ipv6_route')) {
    const words = line.split(/\s+/)
    const [to = '', length = '', , , , , , , flags = ''] = words
    if (words[9] !== name || (parseInt(flags, 16) & RTF_OWN) !== 0) continue
    const address = address6(to)
    if (isLinkLocal(address) || address.startsWith('ff')) continue
    const bits = parseInt(length, 16)
    found.push(bits === 0 ? 'the default route of IPv6' : `the route to ${address}/${bits}`)
  }
  return [...new Set(found)]
}

/** RTF_ANYCAST, RTF_LOCAL, RTF_REJECT: include/uapi/linux/ipv6_route.h, route.h. */
const RTF_OWN = 0x0010_0000 | 0x8000_0000 | 0x0200

function addresses6(system: System, name: string): string[] {
  return lines(system, '/proc/net/if_inet6').flatMap((line) => {
    const words = line.split(/\s+/)
    return words[5] === name ? [address6(words[0] ?? '')] : []
  })
}

function connections(system: System, own: readonly string[]): string[] {
  const found: string[] = []
  for (const path of ['/proc/net/tcp', '/proc/net/tcp6']) {
    for (const line of lines(system, path)) {
      const [, from = '', to = '', state] = line.trim().split(/\s+/)
      if (state !== TCP_ESTABLISHED) continue
      const [local, remote] = [endpoint(from), endpoint(to)]
      if (own.includes(local.address))
        found.push(`a connection from ${local.text} to ${remote.text}`)
    }
  }
  const more = found.length - NAMED
  return more > 0 ? [...found.slice(0, NAMED), `${more} more connections`] : found
}

function endpoint(text: string): { address: string; text: string } {
  const [digits = '', port = ''] = text.split(':')
  const address = digits.length === 8 ? address4(digits) : mapped(address6(swapped(digits)))
  const host = address.includes(':') ? `[${address}]` : address
  return { address, text: `${host}:${parseInt(port, 16)}` }
}

/** A word in the CPU's order, which is little-endian where we run. */
function address4(digits: string): string {
  return pairs(digits)
    .reverse()
    .map((pair) => parseInt(pair, 16))
    .join('.')
}

/** /proc/net/tcp6 has four words in the CPU's order. */
function swapped(digits: string): string {
  const words = digits.match(/.{8}/g) ?? []
  return words.map((word) => pairs(word).reverse().join('')).join('')
}

function pairs(digits: string): string[] {
  return digits.match(/../g) ?? []
}

/** As getifaddrs() and inet_ntop() write it: the longest run of zeros left out. */
function address6(digits: string): string {
  const words = (digits.match(/.{4}/g) ?? []).map((word) => parseInt(word, 16).toString(16))
  const text = words.join(':')
  const runs = [...text.matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)].map(([run]) => run)
  const longest = runs.sort((a, b) => b.length - a.length)[0]
  if (longest === undefined) return text
  const at = text.indexOf(longest)
  const [before, after] = [text.slice(0, at), text.slice(at + longest.length + 1)]
  return `${before}::${after}`
}

function mapped(address: string): string {
  const [, high = '', low = ''] = /^::ffff:([\da-f]+):([\da-f]+)$/.exec(address) ?? []
  if (high === '') return address
  const word = high.padStart(4, '0') + low.padStart(4, '0')
  return pairs(word)
    .map((pair) => parseInt(pair, 16))
    .join('.')
}

/** Without the heading, where there is one: `Iface`, `sl`. */
function lines(system: System, path: string): string[] {
  return (system.read(path) ?? '')
    .split('\n')
    .filter((line) => line !== '' && !/^\s*(?:Iface|sl)\s/.test(line))
}

/** Who beside us has an RDMA device open: what is on its way there goes down with the link. */
export async function usersOfRdmaDevice(name: string, system = new System()): Promise<string[]> {
  const files = system
    .list('/sys/class/infiniband_verbs')
    .filter((entry) => system.read(`/sys/class/infiniband_verbs/${entry}/ibdev`) === name)
    .map((entry) => `/dev/infiniband/${entry}`)
  const holders = await holdersOfFiles(system, (target) => files.includes(target))
  return holders
    .filter(({ pid }) => pid !== process.pid)
    .map(({ pid, program }) => `process ${pid} (${program}) has ${name} open`)
}
