/** A GID as text, eight groups of four hexadecimal digits, as sysfs writes it. */
import { BlockList } from 'node:net'
import { typeError } from '../../errors.js'

/** How far an address reaches. */
export type GidScope = 'host' | 'link' | 'routable'

/** Those of IPv4 are in GIDs as ::ffff:0:0/96, of which BlockList knows. */
const notRoutable = { host: new BlockList(), link: new BlockList() }
notRoutable.host.addAddress('::', 'ipv6')
notRoutable.host.addAddress('::1', 'ipv6')
notRoutable.host.addSubnet('0.0.0.0', 8)
notRoutable.host.addSubnet('127.0.0.0', 8)
notRoutable.link.addSubnet('fe80::', 10, 'ipv6')
notRoutable.link.addSubnet('169.254.0.0', 16)

export function formatGid(bytes: Uint8Array): string {
  const digits = Buffer.from(bytes).toString('hex')
  return (digits.match(/.{4}/g) ?? []).join(':')
}

/** The 16 bytes of a GID. */
export function parseGid(argument: string, gid: unknown): Uint8Array {
  if (typeof gid !== 'string' || !/^([0-9a-f]{4}:){7}[0-9a-f]{4}$/i.test(gid)) {
    throw typeError(argument, 'a GID: eight groups of four hexadecimal digits', gid)
  }
  return Uint8Array.from(Buffer.from(gid.replaceAll(':', ''), 'hex'))
}

/** What a GID's address is (include/net/ipv6.h, ipv6_addr_type(); RFC 3927 for IPv4). */
export function gidAddress(gid: string): { scope: GidScope; isIpv4: boolean } {
  const scopes = ['host', 'link'] as const
  const scope = scopes.find((each) => notRoutable[each].check(gid, 'ipv6')) ?? 'routable'
  return { scope, isIpv4: gid.startsWith('0000:0000:0000:0000:0000:ffff:') }
}
