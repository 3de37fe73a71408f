/** Messages as they should be, and a peer that says whatever it is told to. */
import net from 'node:net'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import type { Introduction } from '../../lib/engines/verbs/link/link-options.js'
import type { Message, MessageType, QueueMessage } from '../../lib/engines/verbs/link/messages.js'
import type { Role } from '../../lib/engines/verbs/link/checks.js'
import { Link } from '../../lib/engines/verbs/link/link.js'
import { memoryPair } from '../../lib/engines/verbs/link/memory-pair.js'

export const MAX = Number.MAX_SAFE_INTEGER

/** One of each. */
export const samples: { [T in MessageType]: Extract<Message, { type: T }> } = {
  hello: {
    type: 'hello',
    version: 1,
    nonce: '0123456789abcdef0123456789abcdef',
    device: 'rxe0',
    gid: '00000000000000000000ffff0a000001',
    mtu: 1024,
  },
  queue: { type: 'queue', queue: 0, qpn: 17, psn: 123456, depth: 64 },
  'queue-ok': { type: 'queue-ok', queue: 0, qpn: 18, psn: 654321, depth: 32 },
  'queue-error': { type: 'queue-error', queue: 0, message: 'no queue pair: ENOMEM' },
  grant: {
    type: 'grant',
    queue: 0,
    buffer: 7,
    label: 'target',
    size: 65536,
    access: 3,
    iova: 0x100000000,
    rkey: 0xdeadbeef,
    generation: 1,
  },
  ungrant: { type: 'ungrant', queue: 0, buffer: 7 },
  ungranted: { type: 'ungranted', queue: 0, buffer: 7 },
  pause: { type: 'pause', queue: 0, n: 1, flush: true, posted: 12 },
  paused: { type: 'paused', queue: 0, n: 1 },
  resume: {
    type: 'resume',
    queue: 0,
    n: 1,
    updates: [{ buffer: 7, iova: 0x200000000, rkey: 1, generation: 2 }],
  },
  credit: { type: 'credit', queue: 0, posted: 12 },
  reset: { type: 'reset', queue: 0, n: 1, psn: 99, received: 5 },
  'reset-ok': { type: 'reset-ok', queue: 0, n: 1, psn: 98, received: 6 },
  bye: { type: 'bye', message: 'done' },
}

export const introduction: Introduction = { device: 'rxe1', gid: '0'.repeat(32), mtu: 4096 }

export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Until nothing more can be under way between two ends in memory. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn()
}

/** A peer without rules. */
export class RawPeer {
  readonly stream: Duplex
  /** Lines that it has been sent, parsed. */
  readonly heard: Record<string, unknown>[] = []
  #seq = 0

  constructor(stream: Duplex) {
    this.stream = stream
    let rest = ''
    stream.on('error', () => {})
    stream.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) this.heard.push(JSON.parse(line) as Record<string, unknown>)
    })
  }

  /** With the next number. */
  say(message: object): void {
    this.write(`${JSON.stringify({ seq: ++this.#seq, ...message })}\n`)
  }

  write(data: string | Uint8Array): void {
    this.stream.write(data)
  }
}

export interface Opened {
  link: Link
  raw: RawPeer
  delivered: QueueMessage[]
  closes: (Error | null)[]
}

/** A link of ours to a raw peer that has said its hello. */
export async function openToRaw(role: Role): Promise<Opened> {
  const [ours, theirs] = memoryPair()
  const raw = new RawPeer(theirs)
  const opening = Link.open(ours, introduction, { role, name: 'raw' })
  raw.say(samples.hello)
  const link = await opening
  const delivered: QueueMessage[] = []
  const closes: (Error | null)[] = []
  link.onMessage = (message) => void delivered.push(message)
  link.onClose = (error) => void closes.push(error)
  return { link, raw, delivered, closes }
}

export const opener = { role: 'opener' } as const
export const accepter = { role: 'accepter' } as const

export function watched(link: Link) {
  const delivered: QueueMessage[] = []
  const closes: (Error | null)[] = []
  link.onMessage = (message) => void delivered.push(message)
  link.onClose = (error) => void closes.push(error)
  return { link, delivered, closes }
}

export async function openBoth(a: Duplex, b: Duplex) {
  const [one, two] = await Promise.all([
    Link.open(a, introduction, opener),
    Link.open(b, introduction, accepter),
  ])
  return [watched(one), watched(two)] as const
}

export async function socketPair(): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  const accepted = once(server, 'connection') as Promise<[net.Socket]>
  const client = net.connect(port, '127.0.0.1')
  const [socket] = await accepted
  await once(client, 'connect').catch(() => {})
  server.close()
  return [client, socket]
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn()
}
