import { randomBytes } from 'node:crypto'
import type { Hello } from './messages.js'
import type { Role } from './checks.js'
import {
  checkMilliseconds,
  checkOptions,
  checkSignal,
  rangeError,
  typeError,
} from '../../../errors.js'

/** Our half of the introduction. A nonce is drawn where none is given. */
export type Introduction = Pick<Hello, 'device' | 'gid' | 'mtu'> & { nonce?: string }

export interface LinkOptions {
  /** Who has connected is the opener, and gives its queues even numbers. */
  role: Role
  /** What errors and `p2pdma:peer` call the peer. Default 'the peer'. */
  name?: string
  /** For the peer's hello, ms. Default 5000. */
  timeoutMs?: number
  /** Ends `open`; an open link is no longer the signal's. */
  signal?: AbortSignal | undefined
}

/** `LinkOptions` with their defaults, and our hello; `encode` checks the latter's fields. */
export function checkOpening(hello: Introduction, options: LinkOptions) {
  const { device, gid, mtu, nonce } = checkOptions(hello, 'hello')
  const { role, name = 'the peer', timeoutMs = 5000, signal } = checkOptions(options)
  if (role !== 'opener' && role !== 'accepter') {
    throw rangeError('role', "'opener' or 'accepter'", role)
  }
  if (typeof name !== 'string') throw typeError('name', 'a string', name)
  checkMilliseconds('timeoutMs', timeoutMs)
  checkSignal(signal)
  const first: Hello = {
    type: 'hello',
    version: 1,
    nonce: nonce ?? randomBytes(16).toString('hex'),
    device,
    gid,
    mtu,
  }
  return { first, role, name, timeoutMs, signal }
}
