/**
 * What two ends tell each other beside the queue pairs: one JSON object a
 * line, each with its number in `seq` and its kind in `type`. All that a
 * message may hold is in one table below; whatever else it holds, it is
 * refused.
 */
import { P2pdmaError } from '../../../errors.js'
import {
  type Field,
  type FieldsOf,
  flag,
  hex,
  listOf,
  name,
  oneOf,
  optional,
  readFields,
  Refusal,
  shortened,
  text,
  toText,
  whole,
} from './fields.js'

/** Longest line, bytes, without its newline. */
export const LINE_MAX = 64 * 1024

/** Most updates in one line: as many of the longest as fit. A `Link` splits longer lists. */
export const UPDATES_MAX = 512

/** First in both directions, and only there. */
export interface Hello {
  type: 'hello'
  version: 1
  /** 32 hex digits, drawn anew for each link: what comes back is no peer. */
  nonce: string
  /** The RDMA device's name at the peer's. */
  device: string
  /** 32 hex digits: the 16 bytes of the GID. */
  gid: string
  /** Active MTU of the port, bytes. */
  mtu: 256 | 512 | 1024 | 2048 | 4096
}

/** Asks for a queue pair to ours. The id is the asker's choice: see `Conversation`. */
export interface OpenQueue {
  type: 'queue'
  queue: number
  qpn: number
  /** First packet number that we send. */
  psn: number
  /** Most requests in flight. */
  depth: number
}

export interface QueueOpened {
  type: 'queue-ok'
  queue: number
  qpn: number
  psn: number
  depth: number
}

/** A queue was not opened; of an open one: it is no more, and the other end says so too. */
export interface QueueEnded {
  type: 'queue-error'
  queue: number
  message: string
  /** Of the error that ended it; none where it was closed in order. */
  code?: string
}

/** The peer may use our buffer on that queue. */
export interface GrantMessage {
  type: 'grant'
  queue: number
  buffer: number
  label: string
  /** Bytes. */
  size: number
  /** 1 read, 2 write, 3 both. */
  access: 1 | 2 | 3
  iova: number
  rkey: number
  generation: number
}

/** The peer is to use it no more, and to say so. */
export interface Ungrant {
  type: 'ungrant'
  queue: number
  buffer: number
}

/** Nothing of ours that names it is under way any more. */
export interface Ungranted {
  type: 'ungranted'
  queue: number
  buffer: number
}

/** Stop using what we granted on that queue, and answer `paused`. */
export interface Pause {
  type: 'pause'
  queue: number
  /** Higher than that of the queue's last pause from this end. */
  n: number
  /** Use up the receives that we have posted, too. */
  flush: boolean
  /** Receives posted so far, as in `credit`. */
  posted: number
}

export interface Paused {
  type: 'paused'
  queue: number
  n: number
}

/** A granted buffer's new mapping. */
export interface Update {
  buffer: number
  iova: number
  rkey: number
  generation: number
}

/** Ends the pause of that number. */
export interface Resume {
  type: 'resume'
  queue: number
  n: number
  updates: readonly Update[]
  /** The next message is a `resume` with further updates. Only on the wire: `Link` joins them. */
  more?: true
}

/** How many receives the sender has posted on the queue since it was opened or last reset. */
export interface Credit {
  type: 'credit'
  queue: number
  posted: number
}

/** The sender's queue pair went to its error state and starts again. */
export interface Reset {
  type: 'reset'
  queue: number
  /** Higher than that of the queue's last reset from this end. */
  n: number
  psn: number
  /** Messages that the sender's queue pair has received: settles the other end's sends. */
  received: number
  /** The sender's device has refused a request: the other end's is about to hear which. */
  refused?: true
}

export interface ResetDone {
  type: 'reset-ok'
  queue: number
  n: number
  psn: number
  received: number
}

/** The last message. With a text it is no friendly one. */
export interface Bye {
  type: 'bye'
  message?: string
}

/** What is said between the hello and the bye. */
export type QueueMessage =
  | OpenQueue
  | QueueOpened
  | QueueEnded
  | GrantMessage
  | Ungrant
  | Ungranted
  | Pause
  | Paused
  | Resume
  | Credit
  | Reset
  | ResetDone

export type Message = Hello | QueueMessage | Bye
export type MessageType = Message['type']
export type MessageOf<T extends MessageType> = Extract<Message, { type: T }>

const count = whole(0, Number.MAX_SAFE_INTEGER)
const uint24 = whole(0, 0xffffff)
const uint32 = whole(0, 0xffffffff)
const generation = whole(1, Number.MAX_SAFE_INTEGER)
const depth = whole(1, 65536)
const update: FieldsOf<Update> = { buffer: uint32, iova: count, rkey: uint32, generation }

type Table = { readonly [T in MessageType]: FieldsOf<Omit<MessageOf<T>, 'type'>> }

const table: Table = {
  hello: {
    version: oneOf(1),
    nonce: hex(32),
    device: name,
    gid: hex(32),
    mtu: oneOf(256, 512, 1024, 2048, 4096),
  },
  queue: { queue: uint32, qpn: uint24, psn: uint24, depth },
  'queue-ok': { queue: uint32, qpn: uint24, psn: uint24, depth },
  'queue-error': { queue: uint32, message: text, code: optional(name) },
  grant: {
    queue: uint32,
    buffer: uint32,
    label: name,
    size: whole(1, Number.MAX_SAFE_INTEGER),
    access: oneOf(1, 2, 3),
    iova: count,
    rkey: uint32,
    generation,
  },
  ungrant: { queue: uint32, buffer: uint32 },
  ungranted: { queue: uint32, buffer: uint32 },
  pause: { queue: uint32, n: count, flush: flag, posted: count },
  paused: { queue: uint32, n: count },
  resume: { queue: uint32, n: count, updates: listOf(UPDATES_MAX, update), more: onlyTrue() },
  credit: { queue: uint32, posted: count },
  reset: { queue: uint32, n: count, psn: uint24, received: count, refused: onlyTrue() },
  'reset-ok': { queue: uint32, n: count, psn: uint24, received: count },
  bye: { message: optional(text) },
}

export const messageTypes = Object.keys(table) as readonly MessageType[]

function onlyTrue(): Field<true> {
  return { optional: true, read: (value) => (value === true ? value : new Refusal('true')) }
}

/**
 * A message as a line, newline included. Throws ERR_INVALID_ARG_VALUE, which
 * names the field, for what `decode` would refuse; texts are made fit instead.
 */
export function encode(message: Message, seq: number): string {
  const { type, ...given } = message
  const body =
    'message' in given && typeof given.message === 'string'
      ? { ...given, message: toText(given.message) }
      : given
  const fields = Object.hasOwn(table, type) ? read(type, body) : new Refusal('known', '.type')
  if (fields instanceof Refusal) {
    throw new P2pdmaError(`a message's ${type}${fields.where} must be ${fields.expected}`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: `${type}${fields.where}`,
    })
  }
  return `${JSON.stringify({ seq, ...fields })}\n`
}

/** A line without its newline as a message. Throws ERR_PROTOCOL, whose hint names the field. */
export function decode(line: string | Uint8Array, expectedSeq: number): Message {
  const bytes = typeof line === 'string' ? Buffer.byteLength(line) : line.length
  if (bytes > LINE_MAX) throw protocolError(`a line of more than ${LINE_MAX} bytes`)
  const value = parse(line)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw protocolError('a line that is no JSON object')
  }
  const { seq, type, ...fields } = value as Record<string, unknown>
  if (seq !== expectedSeq) {
    const given = typeof seq === 'number' ? `number ${seq}` : 'no number'
    const reason = `a message with ${given} where number ${expectedSeq} is due`
    throw protocolError(reason, 'seq', 'messages repeated, lost or out of order')
  }
  if (typeof type !== 'string' || !Object.hasOwn(table, type)) {
    const given = typeof type === 'string' ? shortened(type) : '?'
    throw protocolError(`a message of unknown type '${given}'`, 'type', 'the other end is newer')
  }
  const message = read(type as MessageType, fields)
  if (!(message instanceof Refusal)) return message
  const field = `${type}${message.where}`
  throw protocolError(`a message whose ${field} is not ${message.expected}`, field)
}

/** The type that a line claims, for who reports it; null when it has none. */
export function claimedType(line: Uint8Array): string | null {
  try {
    const { type } = parse(line) as { type?: unknown }
    return typeof type === 'string' ? shortened(type) : null
  } catch {
    return null
  }
}

/** What a peer has sent and may not. `field` as 'grant.size'. */
export function protocolError(reason: string, field?: string, why?: string): P2pdmaError {
  const named = field === undefined ? '' : `look at the field ${field}: `
  return new P2pdmaError(`The peer sent ${reason}`, {
    code: 'ERR_PROTOCOL',
    argument: field,
    hint: `${named}${why ?? 'both ends must be p2pdma, of versions that understand each other'}`,
  })
}

// A byte order mark is no part of JSON, so it is kept and refused.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function parse(line: string | Uint8Array): unknown {
  try {
    return JSON.parse(typeof line === 'string' ? line : utf8.decode(line))
  } catch {
    throw protocolError('a line that is no JSON')
  }
}

function read<T extends MessageType>(type: T, value: object): MessageOf<T> | Refusal {
  const fields = readFields<object>(value, table[type])
  return fields instanceof Refusal ? fields : ({ type, ...fields } as MessageOf<T>)
}
