/** A GID as text, eight groups of four hexadecimal digits, as sysfs writes it. */
import { typeError } from '../../errors.js'

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
